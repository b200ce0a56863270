"""Matrices that gain by it become ``optimum.si::SparseLinear`` with packed weights."""

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from optimum_si.config.validators import matches
from optimum_si.onnx.edits import add_initializer, remove_unused, replace_node
from optimum_si.onnx.kernels.pack import pack
from optimum_si.onnx.kernels.packed import MOST_CSR_COLUMNS, Packed
from optimum_si.onnx.matrices import Matrix, matrix_of
from optimum_si.onnx.packed_nodes import DOMAIN, PARTS, packed_node


#: Fraction of zeros from which a weight without a pattern gains, and from which single columns beat bit masks.
SPARSE_MIN, CSR_MIN = 0.45, 0.85
#: Weights of the smallest matrix that is worth a call.
LEAST = 4096


def sparsify(
    model: ir.Model,
    dtype: str,
    sparse_min: float = SPARSE_MIN,
    include: Iterable[str] | None = None,
    exclude: Iterable[str] | None = None,
) -> list[str]:
    """Replace products with constant matrices that have zeros enough; the rest is left as it is.

    What is taken: ``csr`` from :data:`CSR_MIN` zeros, else 2:4, else 4:8, where every group holds it, else
    ``bitmask``; nothing below ``sparse_min`` zeros or :data:`LEAST` weights. In 4 bits only 2:4 gains over the dense
    kernel of ONNX Runtime, so nothing else is taken.

    Args:
        model: a graph in fp32, changed in place.
        dtype: dtype of the kept weights, "fp32", "fp16", "int8" (a scale for each output) or "int4".
        sparse_min: least fraction of zeros.
        include: globs over names of matrices; None is all.
        exclude: globs over names of matrices that stay dense.

    Returns:
        Names of the matrices that were packed.
    """
    graph = model.graph
    packed: dict[str, tuple[Packed, dict[str, ir.Value]]] = {}
    for node in list(graph):
        matrix = matrix_of(node) if _is_plain(node) else None
        if matrix is None or matrix.dtype != "float32" or not _wanted(matrix.name, include, exclude):
            continue
        chosen = chosen_format(matrix, dtype, sparse_min)
        if chosen is None:
            continue
        if matrix.name not in packed:
            weight = pack(np.ascontiguousarray(matrix.values.T), chosen, dtype)
            parts = {part: add_initializer(graph, f"{matrix.name}.{part}", weight.parts[part]) for part in PARTS}
            packed[matrix.name] = weight, parts
        _replace(graph, node, *packed[matrix.name])
    if packed:
        graph.opset_imports[DOMAIN] = 1
        remove_unused(model)
    return list(packed)


def chosen_format(matrix: Matrix, dtype: str, sparse_min: float = SPARSE_MIN) -> str | None:
    """The format that a matrix [K, N] is packed in; None leaves it dense."""
    if matrix.values.size < LEAST or matrix.zeros < sparse_min:
        return None
    if dtype != "int4" and matrix.zeros >= CSR_MIN and len(matrix.values) <= MOST_CSR_COLUMNS:
        return "csr"
    if matrix.holds(2, 4):
        return "2:4"
    if dtype == "int4":
        return None
    if matrix.holds(4, 8):
        return "4:8"
    return "bitmask"


def _wanted(name: str, include: Iterable[str] | None, exclude: Iterable[str] | None) -> bool:
    if include is not None and not matches(name, include):
        return False
    return exclude is None or not matches(name, exclude)


def _is_plain(node: ir.Node) -> bool:
    """Whether a node is x W (+ bias) and nothing more."""
    numbers = {name: attribute.value for name, attribute in node.attributes.items()}
    if node.op_type == "MatMul":
        return True
    if node.op_type == "Gemm":
        return numbers.get("transA", 0) == 0 and numbers.get("alpha", 1.0) == 1.0 and numbers.get("beta", 1.0) == 1.0
    return False  # a FusedMatMul reads the embeddings, which stay for their own sake


def _replace(graph: ir.Graph, node: ir.Node, packed: Packed, parts: dict[str, ir.Value]) -> None:
    bias = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
    # One number for each output; another bias is added afterwards.
    constant = None if bias is None else bias.const_value
    fits = constant is not None and constant.size == packed.shape[0] == constant.shape[-1]
    assert node.inputs[0] is not None
    product = packed_node(node.inputs[0], packed, parts, bias if fits else None)
    product.name = node.name
    graph.insert_before(node, product)
    last = product
    if bias is not None and not fits:
        last = ir.Node("", "Add", [product.outputs[0], bias])
        graph.insert_before(node, last)
    replace_node(node, last)
