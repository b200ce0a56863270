"""Pages of families: every pair they declare is proven, and their parts of fused layers cover them."""

import pytest
import torch
from support.families import DECODERS, OTHERS, blocks_called, family_inputs, family_model
from support.models import random_scale, relative_change

from optimum_si import SIConfig, SIPruner
from optimum_si.algorithms.induction.absorption import absorb
from optimum_si.models.families import declared_families, find_family
from optimum_si.models.finding.proof import Proof
from optimum_si.models.stacks import find_stacks


DECLARED = {**DECODERS, **OTHERS}
#: Pairs whose scale a model takes in fp32 whatever its dtype, by kind, and where. All others are proven in fp64.
_NORMS = {"norm": "norms multiply by their weight in fp32"}
_ROUTERS = {"norm": "routers multiply what norms give them in fp32"}
_ROPE = {"q<->k": "RoPE turns queries and keys in fp32"}
IN_FP32 = {
    **dict.fromkeys(("gemma", "gemma2", "gemma3", "gemma3n", "gemma4", "qwen3-next"), _NORMS),
    **dict.fromkeys(("deepseek-v2", "deepseek-v2-lite", "deepseek_v3"), _ROUTERS),
    **dict.fromkeys(("modernbert", "qwen2-vl", "qwen2-5-vl", "qwen3-vl"), _ROPE),
    **dict.fromkeys(("cohere", "cohere2"), {**_NORMS, **_ROPE}),
}
FUSED = {
    "gpt2-pairs": ("attn.c_attn", "qkv"),
    "gpt-neox-pairs": ("attention.query_key_value", "qkv"),
    "bloom": ("self_attention.query_key_value", "qkv"),
    "falcon": ("self_attention.query_key_value", "qkv"),
    "falcon-alibi": ("self_attention.query_key_value", "qkv"),
    "falcon-new": ("self_attention.query_key_value", "qkv"),
    "mpt": ("attn.Wqkv", "qkv"),
    "codegen": ("attn.qkv_proj", "qvk"),
    "gpt-bigcode": ("attn.c_attn", "qkv"),
    "gpt-bigcode-heads": ("attn.c_attn", "qkv"),
    "phi3": ("self_attn.qkv_proj", "qkv"),
    "glm4": ("mlp.gate_up_proj", ["gate", "up"]),
    "modernbert": ("mlp.Wi", ["gate", "up"]),
    "gpt2-cross": ("crossattention.c_attn", "kv"),
    "deepseek-v2": ("self_attn.kv_b_proj", "kv"),
    "deepseek_v3": ("self_attn.kv_b_proj", "kv"),
    "mixtral": ("mlp.experts.3.gate_up_proj", ["gate", "up"]),
    "gpt_oss": ("mlp.experts.0.gate_up_proj", ["gate", "up"]),
    "llama4": ("feed_forward.experts.1.gate_up_proj", ["gate", "up"]),
}


@pytest.mark.parametrize("name", DECLARED)
def test_every_declared_pair_is_proven(name):
    with blocks_called(name) as blocks:
        for block, stop in blocks:
            proof, names = Proof(block.module, stop), [group.name for group in block.scale_groups]
            assert names and len(names) == len(set(names))
            assert all(group.absorbable for group in block.scale_groups)
            # Scales of experts that no token comes to move nothing.
            untouched = {group.name for group in block.scale_groups if ".experts." in group.name}
            for group in block.scale_groups:
                assert proof.holds(group, sided=group.name not in untouched), (block.name, group.name)


@pytest.mark.parametrize("name", DECLARED)
def test_any_scale_keeps_the_function_in_fp64(name):
    inexact = {}
    with blocks_called(name, torch.float64) as blocks:
        for block, stop in blocks:
            proof = Proof(block.module, stop)
            for group in block.scale_groups:
                change = proof.change([(group, random_scale(group.size))])
                assert change < 1e-6, (block.name, group.name)
                if change >= 1e-10:
                    inexact["norm" if group.norms else group.name] = change
    assert inexact.keys() == IN_FP32.get(name, {}).keys(), inexact


@pytest.mark.parametrize("name", ["gemma", "gemma2", "gemma3", "qwen3-next"])
def test_norms_that_add_one_to_their_weight_take_scales_too(name):
    with blocks_called(name) as blocks:
        for block, stop in blocks:
            norms = [group for group in block.scale_groups if group.norms]
            assert len(norms) == 2 and all(group.offset == 1 for group in norms)
            weights = {key: value.clone() for key, value in block.module.state_dict().items()}
            before = stop.run(block.module)
            for group in norms:
                scale = random_scale(group.size).clamp(0.25, 4)
                absorb(group, scale)
                assert relative_change(stop.run(block.module), before) < 1e-5
                absorb(group, 1 / scale)
            for key, value in block.module.state_dict().items():
                torch.testing.assert_close(value, weights[key])


@pytest.mark.parametrize("name", FUSED)
def test_parts_of_a_fused_layer_cover_each_of_its_rows_once(name):
    local, parts = FUSED[name]
    with blocks_called(name) as blocks:
        block = blocks[-1][0]
        views = [view for key, view in block.views.items() if key.rsplit(".", 1)[0] == local]
        assert [view.part for view in views] == list(parts)
        module = block.module.get_submodule(local)
        assert all(view.module is module and view.name == f"{view.owner}.{view.part}" for view in views)
        rows = torch.arange(sum(view.shape[0] for view in views))
        seen = torch.cat([view.of_outputs(rows) for view in views])
        assert torch.equal(seen.sort().values, rows) and len(rows) == module.weight.numel() // views[0].shape[1]
        assert all(view.read().shape == view.shape for view in views)


@pytest.mark.parametrize("recipe", [{}, {"preset": "fast"}, {"method": "sparsegpt"}], ids=str)
@pytest.mark.parametrize("name", ["gpt2-pairs", "falcon-new", "phi3", "gpt_oss"])
def test_each_part_has_a_target_of_its_own(name, recipe, tmp_path):
    model = family_model(name)
    inputs = family_inputs(name, model)
    data = [{key: value[row : row + 1] for key, value in inputs.items()} for row in (0, 1, 2, 0)]
    recipe = dict(recipe)
    preset, method = recipe.pop("preset", None), recipe.pop("method", "magnitude")
    config = (
        SIConfig(method, sparsity=0.5, induction=None)
        if preset is None
        else SIConfig.preset(preset, pattern="2:4", recovery={"epochs": 1})
    )
    pruner = SIPruner(model)
    pruner.prune(config, data, tmp_path / "out", progress=False)
    layers = [layer for block in pruner.report.blocks for layer in block.layers]
    assert all(layer.sparsity == pytest.approx(0.5, abs=0.02) for layer in layers)
    assert any(layer.name.endswith((".q", ".gate")) for layer in layers)
    again = type(model).from_pretrained(tmp_path / "out", dtype="auto")
    for (key, value), (_, other) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert torch.equal(value, other), key


def test_every_declared_type_has_a_tiny_model():
    declared = {model_type for family in declared_families() for model_type in family.model_types}
    towers = {stack.tower.config.model_type for name in DECLARED for stack in find_stacks(family_model(name))}
    assert declared - towers == set()


@pytest.mark.parametrize("name", DECLARED)
def test_every_tower_has_its_family(name):
    with blocks_called(name) as blocks:
        assert all(block.family.model_types for block, _ in blocks)
    assert find_family("no such type") is None
