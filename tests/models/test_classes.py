"""What is pruned of three hundred models of transformers, and that it is what a Wanda on whole models prunes."""

from copy import deepcopy

import pytest
import torch
from support.reference_wanda import reference_masks
from support.zoo import ZOO
from support.zoo.exceptions import NOT_REACHED, OF_NO_KIND, REFUSED
from torch import nn
from transformers import PreTrainedModel

from optimum_si import SIConfig, SIPruner
from optimum_si.models.experts.unfused import experts_as_linears
from optimum_si.models.forward.modes import without_cache
from optimum_si.models.forward.runs import suspending
from optimum_si.models.forward.stops import hidden_of
from optimum_si.models.forward.streams import Stream
from optimum_si.models.forward.trace import trace
from optimum_si.models.structure import find_structure


#: A few of each kind, for every day.
DAILY = (
    "LlamaForCausalLM GPT2LMHeadModel MixtralForCausalLM GptOssForCausalLM MambaForCausalLM JambaForCausalLM "
    "T5ForConditionalGeneration BertForMaskedLM DebertaV2ForMaskedLM AlbertForMaskedLM ViTForImageClassification "
    "WhisperForConditionalGeneration CLIPModel Qwen3VLForConditionalGeneration"
).split()
#: Blocks that are called several times are pruned on all their calls at once, which no layer after layer can do.
JOINT = {"AlbertForMaskedLM", "AlbertModel-groups", "FunnelForMaskedLM", "FunnelBaseModel", "LxmertModel"}
#: Pads to whole windows inside, where nothing tells its padding.
PADS_INSIDE = {"PegasusXForConditionalGeneration"}
#: Draws which patches it reads, another time others.
DRAWS = {"ViltForQuestionAnswering"}
#: Know no fp64.
FP32 = {
    "XGLMForCausalLM",
    "MraModel",
    "FSMTForConditionalGeneration",
    "Gemma4ForConditionalGeneration",
    "CanineModel",
    "ProphetNetForConditionalGeneration",
}
#: What stays dense of every model: no linear layer of a block, or one that chooses.
OUTSIDE = {
    "embeddings",
    "output heads",
    "norms and biases",
    "outside the blocks",
    "routers",
    "adapters",
    "convolutions",
}
EACH = [pytest.param(name, marks=() if name in DAILY else pytest.mark.slow) for name in ZOO if name not in REFUSED]


@pytest.mark.parametrize("name", EACH)
def test_every_matrix_in_blocks_reaches_the_target_and_masks_are_those_of_a_wanda_on_whole_models(name, tmp_path):
    model, data = specimen(name), data_of(name)
    reference = deepcopy(model)
    config = SIConfig("wanda", induction=None, calibration={"batch_size": 1, "min_expert_tokens": 16})
    plain = SIConfig("wanda", induction=None, calibration={"batch_size": 1, "min_expert_tokens": 0})
    pruner = SIPruner(model)
    pruner.prune(plain, data, progress=False)
    report = pruner.report
    assert report.sparsity >= 0.48  # some rows are three weights
    assert report.parameters == sum(parameter.numel() for parameter in model.parameters())
    # Parts of a fused layer are told by a name after its own; rows do not care.
    modules = {known for known, module in with_linear_experts(model) if is_linear(module)}
    names = list(dict.fromkeys(one if one in modules else one.rpartition(".")[0] for one in layer_names(report)))
    if name not in JOINT | PADS_INSIDE | FP32:
        with experts_as_linears(reference), without_cache(reference):
            expected = reference_masks(reference, data, in_order(reference, names, data), 0.5)
        with experts_as_linears(model):
            for key, mask in expected.items():
                module = model.get_submodule(key)
                weight = module.weight if isinstance(module, nn.Linear) else module.weight.T
                assert torch.equal(weight == 0, mask), key
    # With tokens for every expert, nothing but routers is left.
    again = specimen(name)
    topped = SIPruner(again)
    topped.prune(config, data, progress=False)
    dense = {why: count for why, count in topped.report.dense_parts.items() if why not in OUTSIDE}
    assert ("of no known kind" in dense) == (name in OF_NO_KIND), dense
    assert ("not reached by the data" in dense) == (name in NOT_REACHED), dense
    assert set(dense) <= {"of no known kind", "not reached by the data"}, dense
    pruner.save_pretrained(tmp_path / "saved")
    dtype = next(model.parameters()).dtype
    loaded = type(model).from_pretrained(tmp_path / "saved", dtype=dtype)
    loaded = loaded.double() if dtype == torch.float64 else loaded  # and its buffers
    loaded.config._experts_implementation = "eager"
    for (key, value), (_, other) in zip(model.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert torch.equal(value, other), key
    # Constants outside the weights, such as frequencies, are computed in the dtype that is loaded.
    torch.testing.assert_close(
        first_output(loaded.eval(), data[0]), first_output(model, data[0]), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", [one for one in EACH if one.values[0] not in DRAWS])
def test_blocks_called_at_their_stops_give_what_they_give_in_a_forward_pass(name):
    model, data = specimen(name), data_of(name, 2)
    with experts_as_linears(model), without_cache(model), torch.no_grad():
        structure = find_structure(model)
        names = [block.name for block in structure.blocks]
        seen = trace(model, structure, data, names)
        blocks = structure.in_order([known for known in seen.order if known not in seen.repeated]).blocks
        expected = {block.name: outputs_of(model, block.module, data) for block in blocks}
        with suspending([block.module for block in blocks]):
            stream = Stream(model, blocks, data)
            while (index := stream.next) is not None:
                outputs = {}
                for batch, stop in stream.stops(index).items():
                    stop.call(blocks[index].module)  # once more than the model does: the second is like the first
                    outputs[batch] = stop.call(blocks[index].module)
                    torch.testing.assert_close(
                        hidden_of(outputs[batch]), expected[blocks[index].name][batch], rtol=1e-5, atol=1e-5
                    )
                stream.advance(index, outputs)
            stream.close()


def specimen(name: str) -> PreTrainedModel:
    model = ZOO[name].build()
    model.config._experts_implementation = "eager"  # torch has no grouped product in fp64
    for module in model.modules():
        if hasattr(module, "config"):
            module.config._experts_implementation = "eager"
    return model if name in FP32 else model.double()


def data_of(name: str, count: int = 4) -> list[dict[str, torch.Tensor]]:
    examples = ZOO[name].examples(count)
    if name in FP32:
        return examples
    return [
        {key: value.double() if value.is_floating_point() else value for key, value in example.items()}
        for example in examples
    ]


def layer_names(report) -> list[str]:
    return [layer.name for layer in report.layers]


def with_linear_experts(model: PreTrainedModel) -> list[tuple[str, nn.Module]]:
    with experts_as_linears(model):
        return list(model.named_modules())


def is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def first_output(model: PreTrainedModel, example: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return model(**example)[0]


def outputs_of(model: PreTrainedModel, module: nn.Module, data: list[dict[str, torch.Tensor]]) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    handle = module.register_forward_hook(lambda *call: found.append(hidden_of(call[2])))
    for example in data:
        model(**example)
    handle.remove()
    return found


@torch.no_grad()
def in_order(model: PreTrainedModel, names: list[str], data: list[dict[str, torch.Tensor]]) -> list[str]:
    """Layers in the order of their first calls, an expert that the first example leaves out before what follows it."""
    orders = []
    for example in data:
        order: list[str] = []
        handles = [
            model.get_submodule(name).register_forward_pre_hook(
                lambda module, args, name=name, order=order: order.append(name)
            )
            for name in names
        ]
        model(**example)
        orders.append(list(dict.fromkeys(order)))
        for handle in handles:
            handle.remove()
    result: list[str] = []
    for order in orders:
        place = 0
        for name in order:
            if name in result:
                place = result.index(name) + 1
            else:
                result.insert(place, name)
                place += 1
    return result
