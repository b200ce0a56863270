"""Weights of a graph in 8 or 4 bits, by ONNX Runtime's own tools; zeros stay exact zeros."""

import tempfile
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from optimum_si.errors import ExportError
from optimum_si.onnx.matrices import matrices

from .tied_weights import untie_weights
from .trace import Trace, quiet


#: Weights that share a scale in int4.
BLOCK = 32


def quantize(part: Trace, dtype: str) -> Trace:
    """The same graph with quantized matrices.

    Args:
        part: a graph in fp32.
        dtype: "int8": a scale for each output, activations quantized at run time; "int4": a scale for each
            :data:`BLOCK` weights, activations in 8 bits (accuracy level 4), symmetric.

    Raises:
        ExportError: for a matrix that is too small, named.
    """
    untie_weights(part.graph.graph)
    if dtype == "int4":
        _check_sizes(part)
    with tempfile.TemporaryDirectory() as folder, quiet():
        source, result = Path(folder) / "model.onnx", Path(folder) / "quantized.onnx"
        ir.save(part.graph, str(source), external_data="model.onnx.data")
        _without_shapes_of_weights(source)
        (_to_int8 if dtype == "int8" else _to_int4)(source, result)
        graph = ir.load(str(result))
        # The folder goes away: weights must be in memory by then.
        ir.external_data.load_to_model(graph)
        _load_attributes(graph)
    return Trace(part.name, graph)


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
