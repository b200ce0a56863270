"""Our grids are those of ONNX Runtime's quantizers: what lies on them comes out of an export as it went in."""

import numpy as np
import onnx_ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.models import correlated_tokens, moments_of, random_weight

from optimum_si.algorithms.quantization.gptq import in_turn, quantized
from optimum_si.algorithms.quantization.grids import GRIDS
from optimum_si.onnx.exporting.quantize import quantize
from optimum_si.onnx.exporting.trace import Trace


def pruned(seed=0, rows=8, columns=64, share=0.5):
    """fp32 [rows, columns] with zeros."""
    weight = random_weight(rows, columns, seed).float()
    return weight * (
        random_weight(rows, columns, seed + 1) > np.quantile(random_weight(rows, columns, seed + 1), share)
    )


def exported(weight: torch.Tensor, values: str) -> torch.Tensor:
    """What the export of one matrix product holds: its codes times its scales, [d_out, d_in] in fp32."""
    matrix = onnx_ir.tensor(np.ascontiguousarray(weight.float().numpy().T), name="weight")
    shape, kind = onnx_ir.Shape(matrix.numpy().shape), onnx_ir.TensorType(matrix.dtype)
    value = onnx_ir.Value(name="weight", shape=shape, type=kind, const_value=matrix)
    hidden = onnx_ir.Value(name="x", shape=onnx_ir.Shape(["n", weight.shape[1]]), type=kind)
    node = onnx_ir.Node("", "MatMul", [hidden, value], name="product")
    node.outputs[0].name, node.outputs[0].type = "y", kind
    node.outputs[0].shape = onnx_ir.Shape(["n", weight.shape[0]])
    graph = onnx_ir.Graph(
        [hidden], node.outputs, nodes=[node], initializers=[value], opset_imports={"": 20}, name="one"
    )
    result = quantize(Trace("model", onnx_ir.Model(graph, ir_version=10)), values).graph.graph
    tensors = {name: each.const_value.numpy() for name, each in result.initializers.items()}
    if values == "int8":
        codes, scales = tensors["weight_quantized"], tensors["weight_scale"]
        assert not tensors["weight_zero_point"].any()
        return torch.tensor((codes.astype(np.float32) * scales).T)
    packed, scales = tensors["weight_Q4"], tensors["weight_scales"]
    codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1, 32).astype(np.float32) - 8
    dequantized = codes * scales.reshape(len(packed), -1)[..., None]
    return torch.tensor(dequantized.reshape(len(packed), -1)[:, : weight.shape[1]])


@pytest.mark.parametrize("columns", [64, 40])
@pytest.mark.parametrize("values", GRIDS)
def test_rounding_to_the_nearest_is_what_the_exporter_does(values, columns):
    weight = pruned(columns=columns)
    assert torch.equal(GRIDS[values].nearest(weight), exported(weight, values))


@pytest.mark.parametrize("columns", [32, 64, 40, 100])
@pytest.mark.parametrize("values", GRIDS)
def test_the_exporter_leaves_weights_on_the_grid_as_they_are(values, columns):
    weight = pruned(columns=columns)
    weight[1] = 0
    weight[2, :32] = 0
    ours = in_turn(weight, moments_of(correlated_tokens(features=columns)).gram, GRIDS[values], 0.01, "mean")
    assert not torch.equal(ours, GRIDS[values].nearest(weight))
    assert torch.equal(exported(ours, values), ours)


@settings(max_examples=20)
@given(
    seed=st.integers(0, 1000),
    columns=st.integers(1, 80),
    share=st.sampled_from([0.0, 0.5, 0.9]),
    size=st.sampled_from([1e-30, 1e-3, 1.0, 1e9]),
    values=st.sampled_from(list(GRIDS)),
)
def test_rounding_twice_is_rounding_once(seed, columns, share, size, values):
    weight = pruned(seed, 4, columns, share) * size
    gram = moments_of(correlated_tokens(features=columns, seed=seed)).gram
    ours = in_turn(weight, gram, GRIDS[values], 0.01, "mean")
    for result in (ours, GRIDS[values].nearest(weight)):
        assert torch.equal(GRIDS[values].nearest(result), result)
        assert not result[weight == 0].any()


@pytest.mark.parametrize("values", GRIDS)
def test_weights_of_fp64_get_scales_that_fp32_can_hold(values):
    weight = pruned().double() * 1.1
    ours = quantized(weight, moments_of(correlated_tokens(features=64)).gram, GRIDS[values], 0.01, "mean")
    assert ours.dtype == torch.float64
    assert torch.equal(exported(ours, values), ours.float())


@pytest.mark.parametrize("values", GRIDS)
def test_weights_too_small_for_a_scale_become_zeros(values):
    weight = torch.full((2, 32), 1e-42)
    assert not GRIDS[values].nearest(weight).any()
    assert not in_turn(weight, torch.eye(32, dtype=torch.float64), GRIDS[values], 0.01, "mean").any()


def test_a_larger_magnitude_of_either_sign_is_the_anchor():
    weight = torch.zeros(2, 32)
    weight[:, :2] = torch.tensor([[1.0, -0.9], [-1.0, 0.9]])
    torch.testing.assert_close(GRIDS["int4"].nearest(weight)[:, :2] * 8, torch.tensor([[8.0, -7.0], [-8.0, 7.0]]))
    torch.testing.assert_close(GRIDS["int8"].nearest(weight)[:, :2] * 64, torch.tensor([[64.0, -58.0], [-64.0, 58.0]]))
