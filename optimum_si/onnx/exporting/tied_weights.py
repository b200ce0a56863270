"""Embeddings that are tied to a head: stored once and read transposed, or given apart for quantization."""

import numpy as np
import onnx_ir as ir

from optimum_si.onnx.edits import add_initializer, array_of, replace_node


_CONTRIB = "com.microsoft"


def share_tied_weights(graph: ir.Graph, contrib: bool) -> list[str]:
    """Store a matrix once that the graph holds twice, as it is and transposed (embeddings tied to a head).

    Args:
        graph: the graph, changed in place.
        contrib: read the transposed one through ``FusedMatMul`` of ONNX Runtime; otherwise through a ``Transpose``,
            which every runtime knows.

    Returns:
        Names of the matrices that are read by both.
    """
    matrices: dict[tuple[int, ...], list[ir.Value]] = {}
    for value in graph.initializers.values():
        if value.const_value is not None and len(value.const_value.shape) == 2:
            matrices.setdefault(tuple(value.const_value.shape.numpy()), []).append(value)
    shared = []
    for (rows, columns), values in list(matrices.items()):
        for value in values:
            if not any(node.op_type == "Gather" for node in value.consumers()):
                continue
            for other in matrices.get((columns, rows), []):
                if other is not value and _is_transposed(value, other):
                    _read_transposed(graph, value, other, contrib)
                    shared.append(value.name or "")
    return shared


def _is_transposed(value: ir.Value, other: ir.Value) -> bool:
    users = list(other.uses())
    only_products = users and all(use.node.op_type == "MatMul" and use.idx == 1 for use in users)
    return bool(only_products) and np.array_equal(array_of(value).T, array_of(other))


def _read_transposed(graph: ir.Graph, value: ir.Value, other: ir.Value, contrib: bool) -> None:
    for use in list(other.uses()):
        node = use.node
        if contrib:
            attributes = [ir.AttrInt64("transB", 1)]
            product = ir.Node(_CONTRIB, "FusedMatMul", [node.inputs[0], value], attributes, name=node.name)
            graph.insert_before(node, product)
            replace_node(node, product)
            graph.opset_imports.setdefault(_CONTRIB, 1)
        else:
            transpose = ir.Node("", "Transpose", [value], [ir.AttrInt64s("perm", [1, 0])])
            graph.insert_before(node, transpose)
            node.replace_input_with(1, transpose.outputs[0])
    del graph.initializers[other.name or ""]


def untie_weights(graph: ir.Graph) -> None:
    """Give a head that reads the embeddings transposed a matrix of its own, which can be quantized."""
    for node in list(graph):
        weight = _tied_weight(node)
        if weight is None or weight.const_value is None:
            continue
        value = add_initializer(graph, f"{weight.name}_transposed", np.ascontiguousarray(array_of(weight).T))
        product = ir.Node("", "MatMul", [node.inputs[0], value], name=node.name)
        graph.insert_before(node, product)
        replace_node(node, product)


def _tied_weight(node: ir.Node) -> ir.Value | None:
    """The matrix that a product reads transposed, when it also serves as embeddings."""
    if node.op_type == "FusedMatMul":
        numbers = {name: attribute.value for name, attribute in node.attributes.items()}
        plain = numbers.pop("transB", 0) == 1 and numbers.pop("alpha", 1.0) == 1.0 and not any(numbers.values())
        weight = node.inputs[1] if plain else None
    elif node.op_type == "MatMul":
        maker = node.inputs[1].producer() if node.inputs[1] is not None else None
        weight = maker.inputs[0] if maker is not None and maker.op_type == "Transpose" else None
    else:
        return None
    is_embedding = weight is not None and any(user.op_type == "Gather" for user in weight.consumers())
    return weight if is_embedding else None
