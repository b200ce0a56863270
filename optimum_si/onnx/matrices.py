"""The constant matrices of a graph, whatever stores them: dense, quantized or packed without zeros."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from optimum_si.onnx.kernels.pack import unpack

from .edits import array_of
from .packed_nodes import DOMAIN, name_of, packed_of


#: Operators that multiply by their second input.
_PRODUCTS = ("MatMul", "FusedMatMul", "Gemm", "MatMulNBits", "MatMulInteger", "DynamicQuantizeMatMul")


@dataclass(frozen=True)
class Matrix:
    """A constant matrix that a node multiplies by.

    Args:
        name: name of the initializer.
        operator: type of the node that reads it.
        values: [K, N], reduced over K; read on access from the mapped file, packed ones unpacked.
        dtype: dtype of the stored values, "float32", "float16", "int8" or "int4"; with the format that leaves zeros
            out, "fp16 2:4".
    """

    name: str
    operator: str
    values: np.ndarray
    dtype: str

    @property
    def zeros(self) -> float:
        """Fraction of exact zeros."""
        return float((self.values == 0).mean()) if self.values.size else 0.0

    def holds(self, kept: int, of: int) -> bool:
        """Whether every group of ``of`` consecutive weights along K has at most ``kept`` non-zeros."""
        rows = len(self.values)
        if rows % of:
            return False
        groups = (self.values != 0).reshape(rows // of, of, -1)
        return int(groups.sum(axis=1).max(initial=0)) <= kept


def matrices(model: ir.Model) -> Iterator[Matrix]:
    """The matrices of a graph, in the order of its nodes; each once."""
    seen: set[str] = set()
    for node in model.graph.all_nodes():
        found = matrix_of(node)
        if found is not None and found.name not in seen:
            seen.add(found.name)
            yield found


def matrix_of(node: ir.Node) -> Matrix | None:
    """The constant matrix that a node multiplies by; None where it multiplies by none."""
    operator = node.op_type
    if node.domain == DOMAIN:
        packed = packed_of(node)
        return Matrix(name_of(node), operator, unpack(packed).T, f"{packed.dtype} {packed.format}")
    if operator not in _PRODUCTS:
        return None
    weight = node.inputs[1]
    transposed = operator in ("FusedMatMul", "Gemm") and bool(_integer(node, "transB", 0))
    if weight is not None and weight.const_value is None and (maker := weight.producer()) is not None:
        # A transposed read of a weight that is also an embedding.
        if maker.op_type == "Transpose":
            weight, transposed = maker.inputs[0], not transposed
    if weight is None or weight.const_value is None or not weight.is_initializer():
        return None
    if operator == "MatMulNBits":
        return Matrix(weight.name or "", operator, _steps_of(node), f"int{_integer(node, 'bits', 4)}")
    values = array_of(weight)
    if values.ndim != 2:
        return None
    if operator in ("MatMulInteger", "DynamicQuantizeMatMul"):
        zero_point = node.inputs[3] if len(node.inputs) > 3 else None
        if zero_point is not None and zero_point.const_value is not None:
            values = values.astype(np.int16) - array_of(zero_point).astype(np.int16)
        return Matrix(weight.name or "", operator, values, "int8")
    return Matrix(weight.name or "", operator, values.T if transposed else values, values.dtype.name)


def _steps_of(node: ir.Node) -> np.ndarray:
    """Quantized steps of a ``MatMulNBits`` weight as int8 [K, N]; 0 stands for an exact zero."""
    bits, columns, rows = _integer(node, "bits", 4), _integer(node, "N", 0), _integer(node, "K", 0)
    packed = node.inputs[1]
    assert packed is not None
    blob = array_of(packed).reshape(columns, -1)
    if bits == 4:
        steps = np.stack([blob & 15, blob >> 4], axis=-1).reshape(columns, -1)
    else:
        steps = blob
    middle = 1 << (bits - 1)
    return (steps[:, :rows].astype(np.int16) - middle).astype(np.int8).T


def _integer(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else int(attribute.as_int())
