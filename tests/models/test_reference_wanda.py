"""The reference that other tests compare with says what Wanda's formula says, weight by weight."""

import copy

import pytest
import torch
from support.reference_wanda import block_weights, prune_rows, reference_masks, share_at_target
from support.zoo import ZOO
from torch import Tensor, nn


def _by_hand(weight: Tensor, tokens: Tensor, target) -> Tensor:
    """One weight after the other, in Python's numbers."""
    mask = torch.zeros(weight.shape, dtype=torch.bool)
    norms = [sum(float(token[column]) ** 2 for token in tokens) / len(tokens) for column in range(weight.shape[1])]
    size, count = (weight.shape[1], round(target * weight.shape[1])) if isinstance(target, float) else (
        target[1], target[1] - target[0]
    )  # fmt: skip
    for row in range(weight.shape[0]):
        for start in range(0, weight.shape[1], size):
            columns = sorted(
                range(start, start + size), key=lambda c: (abs(float(weight[row, c])) * norms[c] ** 0.5, c)
            )
            mask[row, columns[:count]] = True
    return mask


def _inputs(model, layer: str, batches) -> Tensor:
    """All tokens that a layer reads."""
    seen = []
    hook = dict(model.named_modules())[layer].register_forward_pre_hook(
        lambda module, args: seen.append(args[0].flatten(0, -2))
    )
    with torch.no_grad():
        for batch in batches:
            model(**batch)
    hook.remove()
    return torch.cat(seen)


# The second is of Conv1D's, the third has two stacks.
LAYERS = {
    "LlamaForCausalLM": ("model.layers.0.self_attn.o_proj", "model.layers.0.mlp.down_proj"),
    "GPT2LMHeadModel": ("transformer.h.0.attn.c_proj", "transformer.h.1.mlp.c_fc"),
    "T5ForConditionalGeneration": (
        "encoder.block.1.layer.1.DenseReluDense.wo", "decoder.block.0.layer.1.EncDecAttention.k",
    ),
}  # fmt: skip


@pytest.mark.parametrize("target", [0.5, (2, 4)])
@pytest.mark.parametrize("name", LAYERS)
def test_the_reference_prunes_what_the_formula_names(name, target):
    model, batches = ZOO[name].build(), ZOO[name].examples(3)
    before = copy.deepcopy(model.state_dict())
    masks = reference_masks(model, batches, LAYERS[name], target)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())

    twin = copy.deepcopy(model).double()
    for layer in LAYERS[name]:
        module = twin.get_submodule(layer)
        weight = module.weight.data if isinstance(module, nn.Linear) else module.weight.data.T
        expected = _by_hand(weight, _inputs(twin, layer, batches), target)
        assert torch.equal(masks[layer], expected)
        weight[expected] = 0


def test_a_later_layer_sees_what_pruned_ones_give_it():
    model, batches = ZOO["LlamaForCausalLM"].build(), ZOO["LlamaForCausalLM"].examples(3)
    first, second = "model.layers.0.self_attn.o_proj", "model.layers.1.mlp.down_proj"
    in_sequence = reference_masks(model, batches, [first, second], 0.5)
    together = reference_masks(model, batches, [(first, second)], 0.5)
    assert torch.equal(in_sequence[first], together[first])
    assert not torch.equal(in_sequence[second], together[second])


def test_padding_counts_for_nothing():
    model, (example,) = ZOO["LlamaForCausalLM"].build(), ZOO["LlamaForCausalLM"].examples(1)
    padded = {
        "input_ids": torch.cat([example["input_ids"], torch.full((1, 5), 7)], dim=1),
        "attention_mask": torch.cat([example["attention_mask"], torch.zeros(1, 5, dtype=torch.long)], dim=1),
    }
    layers = ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"]
    expected, masks = (reference_masks(model, [batch], layers, 0.5) for batch in (example, padded))
    assert all(torch.equal(masks[layer], expected[layer]) for layer in layers)


def test_of_equal_scores_the_first_are_pruned():
    assert prune_rows(torch.ones(1, 8), 0.5).tolist() == [[True] * 4 + [False] * 4]
    assert prune_rows(torch.ones(1, 8), (1, 4)).tolist() == [[True, True, True, False] * 2]


def test_the_share_at_target_is_that_of_weights():
    model = ZOO["LlamaForCausalLM"].build()
    names = block_weights(model)
    assert len(names) == 14 and share_at_target(model, names) == 0
    weight = model.get_parameter(names[0])
    with torch.no_grad():
        weight[:, ::2] = 0
    total = sum(model.get_parameter(name).numel() for name in names)
    assert share_at_target(model, names) == share_at_target(model, names, (2, 4)) == weight.numel() / total
    assert share_at_target(model, names, 0.6) == 0


def test_experts_that_no_token_reaches_are_told():
    specimen = ZOO["NllbMoeForConditionalGeneration"]
    model = specimen.build()
    with torch.no_grad():
        model.model.encoder.layers[1].ffn.router.classifier.weight.zero_()
    with pytest.raises(ValueError, match="No token reaches .*expert_3.fc1"):
        reference_masks(model, specimen.examples(1), ["model.encoder.layers.1.ffn.experts.expert_3.fc1"], 0.5)
