"""Padding of sounds is told at the frames that blocks see, in each way that models count them."""

import copy

import pytest
import torch
import transformers
from support.zoo import ZOO

from optimum_si import SIConfig, SIPruner
from optimum_si.models.forward.runs import ModelRun, suspending
from optimum_si.models.stacks import find_stacks


def with_adapter():
    config = copy.deepcopy(ZOO["Wav2Vec2ForCTC-stable"].build().config)
    config.add_adapter, config.num_adapter_layers, config.adapter_kernel_size = True, 1, 3
    torch.manual_seed(0)
    return transformers.Wav2Vec2ForCTC(config).eval()


def heard(name):
    """A model, one example of a sound of a full length and one whose second half is padding, and its mask's name."""
    if name == "adapter":
        (example,), model = ZOO["Wav2Vec2ForCTC-stable"].examples(1), with_adapter()
    else:
        (example,), model = ZOO[name].examples(1), ZOO[name].build()
    mask = "feature_attention_mask" if "feature_attention_mask" in example else "attention_mask"
    example = {key: torch.cat([value, value]) for key, value in example.items()}
    size = example[mask].shape[1] // 2
    example[mask][1, size:] = 0
    if mask == "feature_attention_mask":  # half as many tokens stand for half the sound
        marks = (example["input_ids"][1] == model.config.audio_token_index).nonzero()[:, 0]
        example["input_ids"][1, marks[len(marks) // 2 :]] = 5
    return model, example


@pytest.mark.parametrize(
    ("name", "frames", "real"),
    [
        ("Wav2Vec2ForCTC-stable", 38, 18),
        ("adapter", 38, 18),
        ("SEWForCTC", 19, 9),
        ("ParakeetForCTC", 10, 5),
        ("Speech2TextForConditionalGeneration", 10, 5),
        ("Qwen2AudioForConditionalGeneration", 20, 10),
    ],
)
def test_the_first_block_is_told_its_real_frames(name, frames, real):
    model, example = heard(name)
    stack = next(stack for stack in find_stacks(model) if "decoder" not in stack.name and "language" not in stack.name)
    block = next(iter(stack.modules.values()))
    with torch.no_grad(), suspending([block]):
        run = ModelRun(model, example, [stack.padding])
        run.resume()
        mask = run.stop.mask
        run.close()
    assert mask.sum(dim=1).tolist() == [frames, real] and mask[1, :real].all()


def test_a_whole_sound_has_no_padding_in_front_of_an_adapter():
    (example,), models = ZOO["Wav2Vec2ForCTC-stable"].examples(1), [with_adapter() for _ in range(2)]
    plain = {key: value for key, value in example.items() if key != "attention_mask"}
    for model, data in zip(models, (example, plain), strict=True):
        SIPruner(model).prune(SIConfig("wanda", induction=None), [data, data], progress=False)
    for value, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(value == 0, other == 0)
