"""Packed weights as ordinary products, for machines without kernels."""

import numpy as np
import onnx_ir as ir

from optimum_si.onnx.edits import add_initializer, remove_unused, replace_node
from optimum_si.onnx.kernels.pack import unpack
from optimum_si.onnx.packed_nodes import BIAS, DOMAIN, name_of, packed_of


def densify(model: ir.Model) -> None:
    """Turn the packed weights of a graph into dense ones, in place."""
    graph = model.graph
    dense: dict[str, ir.Value] = {}
    for node in list(graph):
        if node.domain != DOMAIN:
            continue
        name = name_of(node)
        if name not in dense:
            dense[name] = add_initializer(graph, name, np.ascontiguousarray(unpack(packed_of(node)).T))
        product = ir.Node("", "MatMul", [node.inputs[0], dense[name]], name=node.name)
        graph.insert_before(node, product)
        last = product
        bias = node.inputs[BIAS] if len(node.inputs) > BIAS else None
        if bias is not None:
            last = ir.Node("", "Add", [product.outputs[0], bias])
            graph.insert_before(node, last)
        replace_node(node, last)
    remove_unused(model)
    graph.opset_imports.pop(DOMAIN, None)
