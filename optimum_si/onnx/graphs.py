"""What is done to a traced graph: names that others know, weights stored once, and what its matrices hold."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from optimum_si.onnx.kernels.pack import unpack

from .packed_nodes import DOMAIN, name_of, packed_of


#: Inputs and outputs of a cache, as the exporter of transformers names them.
_CACHE = re.compile(r"(input|output)\.(?:past_key_values|cache)\.layers\.(\d+)\.(keys|values)$")
_CONTRIB = "com.microsoft"


def rename(graph: ir.Graph) -> None:
    """Give inputs, outputs and dynamic axes the names that ONNX Runtime's own tools use.

    ``past_key_values.N.key`` and ``present.N.key``, ``encoder_hidden_states``, and the axes ``batch_size``,
    ``sequence_length``, ``past_sequence_length``, ``total_sequence_length``, ``encoder_sequence_length``.
    """
    axes: dict[str, str] = {}
    is_decoder = any(value.name == "decoder_input_ids" for value in graph.inputs)
    for value in [*graph.inputs, *graph.outputs]:
        name = value.name or ""
        if match := _CACHE.match(name):
            side, layer, kind = match.groups()
            value.name = f"{'past_key_values' if side == 'input' else 'present'}.{layer}.{kind[:-1]}"
        elif is_decoder and name == "attention_mask":
            value.name = "encoder_attention_mask"
        elif name == "encoder_outputs.last_hidden_state":
            value.name = "encoder_hidden_states"
    has_cache = any((value.name or "").startswith("past_key_values") for value in graph.inputs)
    if is_decoder and not has_cache:
        kept = [value for value in graph.outputs if not re.match(r"(past_key_values|cache)\.", value.name or "")]
        graph.outputs[:] = kept
    for value in graph.inputs:
        for place, axis in enumerate(_axes_of(value.name or "", has_cache)):
            size = value.shape[place] if value.shape is not None and place < len(value.shape) else None
            if isinstance(size, ir.SymbolicDim) and size.value is not None and axis is not None:
                axes.setdefault(str(size.value), axis)
    for value in _values(graph):
        if value.shape is not None and not value.shape.frozen:
            for place, size in enumerate(value.shape):
                name = str(size.value) if isinstance(size, ir.SymbolicDim) else ""
                if name in axes:
                    value.shape[place] = ir.SymbolicDim(axes[name])
                elif name.isdigit():  # a constant that the tracer kept as an expression
                    value.shape[place] = int(name)


def _axes_of(name: str, has_cache: bool) -> tuple[str | None, ...]:
    if name.startswith("past_key_values"):
        return "batch_size", None, "past_sequence_length", None
    if name.startswith("encoder_"):
        return "batch_size", "encoder_sequence_length"
    if name == "attention_mask" and has_cache:
        return "batch_size", "total_sequence_length"
    return ("batch_size",) if name == "pixel_values" else ("batch_size", "sequence_length")


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs


def share_tied_weights(graph: ir.Graph, contrib: bool) -> list[str]:
    """Store a matrix once that the graph holds twice, as it is and transposed (embeddings tied to a head).

    Args:
        graph: changed in place.
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
    return bool(only_products) and np.array_equal(_numpy(value).T, _numpy(other))


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
            turned = ir.Node("", "Transpose", [value], [ir.AttrInt64s("perm", [1, 0])])
            graph.insert_before(node, turned)
            node.replace_input_with(1, turned.outputs[0])
    del graph.initializers[other.name or ""]


def replace_node(old: ir.Node, new: ir.Node) -> None:
    """Put a node that is already in the graph in the place of another one, which is removed."""
    assert old.graph is not None
    ir.convenience.replace_nodes_and_values(old.graph, old, [old], [new], old.outputs, new.outputs)


@dataclass(frozen=True)
class Matrix:
    """A constant matrix that a node multiplies by.

    Args:
        name: of the initializer.
        operator: type of the node that reads it.
        values: [K, N], reduced over K; read on access from the mapped file, packed ones unpacked.
        packed: how its values are stored: "float32", "float16", "int8", "int4", "fp16 2:4" (without zeros), ...
    """

    name: str
    operator: str
    values: np.ndarray
    packed: str

    @property
    def zeros(self) -> float:
        """Share of exact zeros."""
        return float((self.values == 0).mean())

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
    operator = node.op_type
    if node.domain == DOMAIN:
        packed = packed_of(node)
        return Matrix(name_of(node), operator, unpack(packed).T, f"{packed.kind} {packed.format}")
    if operator not in ("MatMul", "FusedMatMul", "Gemm", "MatMulNBits", "MatMulInteger", "DynamicQuantizeMatMul"):
        return None
    weight = node.inputs[1]
    turned = operator in ("FusedMatMul", "Gemm") and bool(_integer(node, "transB", 0))
    if weight is not None and weight.const_value is None and (maker := weight.producer()) is not None:
        # A transposed read of a weight that is also an embedding.
        if maker.op_type == "Transpose":
            weight, turned = maker.inputs[0], not turned
    if weight is None or weight.const_value is None or not weight.is_initializer():
        return None
    if operator == "MatMulNBits":
        return Matrix(weight.name or "", operator, _unpacked(node), f"int{_integer(node, 'bits', 4)}")
    values = _numpy(weight)
    if values.ndim != 2:
        return None
    if operator in ("MatMulInteger", "DynamicQuantizeMatMul"):
        place = 3
        zero = node.inputs[place] if len(node.inputs) > place else None
        if zero is not None and zero.const_value is not None:
            values = values.astype(np.int16) - _numpy(zero).astype(np.int16)
        return Matrix(weight.name or "", operator, values, "int8")
    kind = values.dtype.name
    return Matrix(weight.name or "", operator, values.T if turned else values, kind)


def _unpacked(node: ir.Node) -> np.ndarray:
    """Quantized steps of a ``MatMulNBits`` weight as int8 [K, N]; 0 stands for an exact zero."""
    bits, columns, rows = _integer(node, "bits", 4), _integer(node, "N", 0), _integer(node, "K", 0)
    packed = node.inputs[1]
    assert packed is not None
    blob = _numpy(packed).reshape(columns, -1)
    if bits == 4:
        steps = np.stack([blob & 15, blob >> 4], axis=-1).reshape(columns, -1)
    else:
        steps = blob
    middle = 1 << (bits - 1)
    return (steps[:, :rows].astype(np.int16) - middle).astype(np.int8).T


def _integer(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else int(attribute.as_int())


def _numpy(value: ir.Value) -> np.ndarray:
    assert value.const_value is not None
    return value.const_value.numpy()
