"""Weights of a graph in 8 or 4 bits, by ONNX Runtime's own tools; zeros stay exact zeros."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from optimum_si.errors import ExportError
from optimum_si.onnx.graphs import matrices, replace_node

from .trace import Trace, quiet


#: Weights that share a scale in int4.
BLOCK = 32


def quantize(part: Trace, values: str) -> Trace:
    """The same graph with quantized matrices.

    Args:
        part: a graph in fp32.
        values: "int8": a scale for each output, activations quantized at run time; "int4": a scale for each
            :data:`BLOCK` weights, activations in 8 bits (accuracy level 4), symmetric.

    Raises:
        ExportError: for a matrix that is too small, named.
    """
    _untie(part.graph.graph)
    if values == "int4":
        _check_sizes(part)
    with tempfile.TemporaryDirectory() as folder, quiet():
        source, result = Path(folder) / "model.onnx", Path(folder) / "quantized.onnx"
        ir.save(part.graph, str(source), external_data="model.onnx.data")
        _without_shapes_of_weights(source)
        (_to_int8 if values == "int8" else _to_int4)(source, result)
        graph = ir.load(str(result))
        # The folder goes away: weights must be in memory by then.
        ir.external_data.load_to_model(graph)
        _load_attributes(graph)
    return Trace(part.name, graph)


def _untie(graph: ir.Graph) -> None:
    """Give a head that reads the embeddings transposed a matrix of its own, which can be quantized."""
    for node in list(graph):
        weight = _read_transposed(node)
        if weight is None or weight.const_value is None:
            continue
        turned = ir.tensor(np.ascontiguousarray(weight.const_value.numpy().T), name=f"{weight.name}_transposed")
        shape = ir.Shape(turned.numpy().shape)
        value = ir.Value(name=turned.name, shape=shape, type=ir.TensorType(turned.dtype), const_value=turned)
        graph.register_initializer(value)
        product = ir.Node("", "MatMul", [node.inputs[0], value], name=node.name)
        graph.insert_before(node, product)
        replace_node(node, product)


def _read_transposed(node: ir.Node) -> ir.Value | None:
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


def _to_int8(source: Path, result: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        str(source),
        str(result),
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        # Half a bit less than all of it: AVX2 machines add pairs of products in 16 bits and would saturate.
        reduce_range=True,
        weight_type=QuantType.QInt8,
        use_external_data_format=True,
        extra_options={"WeightSymmetric": True, "MatMulConstBOnly": True},
    )


def _to_int4(source: Path, result: Path) -> None:
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    recipe = DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=True, accuracy_level=4)
    model = onnx.load(str(source))
    quantizer = MatMulNBitsQuantizer(model, algo_config=recipe)
    quantizer.process()
    quantizer.model.save_model_to_file(str(result), use_external_data_format=True)


def _check_sizes(part: Trace) -> None:
    for matrix in matrices(part.graph):
        rows, columns = matrix.values.shape
        if rows < BLOCK:
            raise ExportError(
                f"int4 shares a scale among {BLOCK} inputs, and matrix {matrix.name!r} has only {rows} (x {columns} "
                "outputs): export with values='int8' or 'fp32'."
            )


def _without_shapes_of_weights(path: Path) -> None:
    """Shapes recorded for weights go stale when a tool transposes them, and are inferred again anyway."""
    proto = onnx.load(str(path), load_external_data=False)
    names = {initializer.name for initializer in proto.graph.initializer}
    kept = [info for info in proto.graph.value_info if info.name not in names]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)
    onnx.save(proto, str(path))


def _load_attributes(graph: ir.Model) -> None:
    for node in graph.graph.all_nodes():
        for name, attribute in list(node.attributes.items()):
            tensor: Any = attribute.value
            if attribute.type == ir.AttributeType.TENSOR and isinstance(tensor, ir.ExternalTensor):
                node.attributes[name] = ir.AttrTensor(name, ir.Tensor(tensor.numpy(), name=tensor.name))
