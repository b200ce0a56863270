"""Blocks, weights and pairs that are found in each family."""

import pytest
import torch
from support.models import FAMILIES, UNDECLARED, block_weights, prune, tiny
from transformers import LlamaConfig, PreTrainedModel

from optimum_si.errors import ConfigurationError, UnsupportedModelError
from optimum_si.models.scale_groups import with_score_only_groups
from optimum_si.models.selection import select_views
from optimum_si.models.structure import find_structure


LLAMA = {
    "input_layernorm->q,k,v",
    "v->o",
    "post_attention_layernorm->gate,up",
    "up->down",
}
PAIRS = {
    "llama": {*LLAMA, "q<->k"},
    "llama-tied-biased": {*LLAMA, "q<->k"},
    "mistral": {*LLAMA, "q<->k"},
    "qwen2": {*LLAMA, "q<->k"},
    "qwen3": LLAMA,
    "opt": {"v->out", "q<->k", "self_attn_layer_norm->q,k,v", "final_layer_norm->fc1", "fc1->fc2"},
    "opt-post-norm": {"v->out", "q<->k", "fc1->fc2"},
    "bert": {"value->output", "query<->key"},
    "bert-relu": {"value->output", "query<->key", "intermediate->output"},
    "gpt2": {"ln_1->q,k,v", "ln_2->c_fc", "v->o", "q<->k"},
    "gpt-neox": {"input_layernorm->q,k,v", "post_attention_layernorm->dense_h_to_4h", "v->o", "q<->k"},
    "vit": {"layernorm_before->q,k,v", "layernorm_after->fc1", "v->o", "q<->k"},
    "t5": {"layer.0.layer_norm->q,k,v", "wi->wo", "SelfAttention.v->o", "SelfAttention.q<->k"},
    **dict.fromkeys(UNDECLARED, set()),
}
#: What T5 has more, in decoders and encoders.
CROSS = {
    True: {"layer.1.layer_norm->q", "layer.2.layer_norm->wi", "EncDecAttention.v->o", "EncDecAttention.q<->k"},
    False: {"layer.1.layer_norm->wi"},
}
COUNTS = dict.fromkeys(FAMILIES, 6) | dict.fromkeys(("llama", "llama-tied-biased", "mistral", "qwen2", "qwen3"), 7)


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_declares_just_the_pairs_that_hold(name):
    structure = find_structure(tiny(name))
    assert (not structure.undeclared) == (name not in UNDECLARED)
    assert len(structure.blocks) == (4 if name == "t5" else 2) and not structure.untreated
    for block in structure.blocks:
        reads_encoder = block.name.startswith("decoder.")
        assert {group.name for group in block.scale_groups} == PAIRS[name] | (
            CROSS[reads_encoder] if name == "t5" else set()
        )
        assert all(group.absorbable for group in block.scale_groups)
        assert len(block.views) == COUNTS[name] + 4 * reads_encoder


def test_names_are_those_of_modules():
    model = tiny("opt")
    structure = find_structure(model)
    modules = dict(model.named_modules())
    for block in structure.blocks:
        assert modules[block.name] is block.module
        for local, view in block.views.items():
            assert view.name == f"{block.name}.{local}" and modules[view.name] is view.module
            assert dict(block.module.named_parameters())[f"{local}.weight"] is view.tensor()


def test_embeddings_and_heads_are_outside_the_blocks():
    weights = block_weights(tiny("llama"))
    assert len(weights) == 14 and all(name.startswith("model.layers.") for name in weights)


def test_every_stack_is_found_and_knows_its_padding():
    structure = find_structure(tiny("t5"))
    assert [stack.name for stack in structure.stacks] == ["encoder.block", "decoder.block"]
    encoder, decoder = (stack.padding for stack in structure.stacks)
    assert (encoder.own, encoder.other) == ("attention_mask", None)
    assert (decoder.own, decoder.other) == ("decoder_attention_mask", "attention_mask")


def test_keys_have_no_shift_where_there_is_no_rope():
    assert find_structure(tiny("opt")).blocks[0].family.no_shift == ("self_attn.k_proj",)
    assert find_structure(tiny("bert")).blocks[0].family.no_shift == ("attention.self.key",)
    assert find_structure(tiny("qwen2")).blocks[0].family.no_shift == ()


def test_a_parameter_of_two_modules_is_not_scaled():
    model = tiny("llama")
    first, second = model.model.layers
    second.mlp.up_proj.weight = first.mlp.up_proj.weight
    for block in find_structure(model).blocks:
        absorbable = {group.name: group.absorbable for group in block.scale_groups}
        assert not absorbable["up->down"] and not absorbable["post_attention_layernorm->gate,up"]
        assert absorbable["v->o"] and absorbable["q<->k"] and absorbable["input_layernorm->q,k,v"]


def test_a_norm_of_two_blocks_is_not_scaled():
    model = tiny("llama")
    first, second = model.model.layers
    second.input_layernorm.weight = first.input_layernorm.weight
    for block in find_structure(model).blocks:
        absorbable = {group.name: group.absorbable for group in block.scale_groups}
        assert not absorbable["input_layernorm->q,k,v"] and absorbable["up->down"]


@pytest.mark.parametrize("place", ["one block", "two blocks"])
def test_a_weight_that_two_modules_share_is_pruned_once(place):
    model = tiny("llama")
    first, second = model.model.layers
    other = first.mlp.gate_proj if place == "one block" else second.mlp.up_proj
    other.weight = first.mlp.up_proj.weight
    selected = select_views(find_structure(model), None, None)
    assert sum(len(views) for views in selected) == 13
    report = prune(model, "sparsegpt", sparsity=0.5, induction=None).report
    assert report.sparsity == pytest.approx(0.5, abs=0.01)


def test_globs_choose_layers():
    structure = find_structure(tiny("llama"))
    selected = select_views(structure, ["*.mlp.*"], ["*.0.mlp.up_proj"])
    assert [sorted(views) for views in selected] == [
        ["mlp.down_proj", "mlp.gate_proj"],
        ["mlp.down_proj", "mlp.gate_proj", "mlp.up_proj"],
    ]


@pytest.mark.parametrize("kind", ["include", "exclude"])
def test_a_glob_that_matches_nothing_shows_names(kind):
    globs = {"include": None, "exclude": None, kind: ["*.nothing"]}
    with pytest.raises(ConfigurationError, match=rf"{kind}='\*\.nothing'.*14 layers.*self_attn\.q_proj"):
        select_views(find_structure(tiny("llama")), **globs)


def test_globs_that_leave_nothing_are_refused():
    with pytest.raises(ConfigurationError, match="leave no layer"):
        select_views(find_structure(tiny("llama")), ["*.mlp.*"], ["*"])


def groups_of(block, inputs, own):
    return with_score_only_groups(block.name, block.scale_groups, inputs, own)


def test_each_input_has_a_scale():
    block = find_structure(tiny("opt-post-norm")).blocks[0]
    views = block.views
    shared = [[views["self_attn.q_proj"], views["self_attn.k_proj"]], [views["fc1"]], [views["fc2"]]]
    extra = {group.name for group in groups_of(block, shared, own=False)} - PAIRS["opt-post-norm"]
    assert extra == {"input of self_attn.q_proj,self_attn.k_proj", "input of fc1"}
    own = {group.name for group in groups_of(block, shared, own=True)} - PAIRS["opt-post-norm"]
    assert own == {"input of self_attn.q_proj", "input of self_attn.k_proj", "input of fc1"}


def test_scales_of_undeclared_inputs_only_weigh_the_score():
    block = find_structure(tiny("gpt-neo")).blocks[0]
    scale_groups = with_score_only_groups(
        block.name, block.scale_groups, [[view] for view in block.views.values()], own=False
    )
    assert len(scale_groups) == 6 and not any(entry.absorbable for entry in scale_groups)


def test_a_model_without_blocks_names_what_was_seen():
    class Flat(PreTrainedModel):
        config_class = LlamaConfig

        def __init__(self):
            super().__init__(LlamaConfig())
            self.only_layer = torch.nn.Linear(8, 8)

    with pytest.raises(UnsupportedModelError, match="Flat.*only_layer"):
        find_structure(Flat())
