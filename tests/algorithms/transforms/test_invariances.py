"""Every declared invariance holds: random rotations and permutations leave the function of each family as it is."""

import pytest
import torch
from support.models import DECLARED, UPCASTING, VOCABULARY, logits, relative_change, tiny
from transformers import (
    BertConfig,
    BertForPreTraining,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    LlamaConfig,
    LlamaForSequenceClassification,
    LlamaModel,
    OPTConfig,
    OPTForCausalLM,
    OPTForSequenceClassification,
)

from optimum_si.algorithms.transforms.change_basis import fold, is_foldable, needs_untying, permute, rotate
from optimum_si.algorithms.transforms.orthogonal import orthogonalized
from optimum_si.models.find_invariances import find_invariances
from optimum_si.models.invariances import Basis
from optimum_si.models.structure import find_structure


SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
ROTATABLE = [name for name in DECLARED if name not in ("opt-post-norm", "bert", "bert-relu")]


def invariances_of(model):
    return find_invariances(model, find_structure(model))


def random_rotation(basis: Basis, centered: bool = False) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(basis.parts, basis.size, basis.size, generator=generator, dtype=torch.float64)
    return orthogonalized(values, centered)


def random_order(basis: Basis) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.stack([torch.randperm(basis.size, generator=generator) for _ in range(basis.parts)])


def tolerance(name: str, dtype: torch.dtype) -> float:
    return 1e-10 if dtype == torch.float64 and name not in UPCASTING else 1e-5


def check(name, model, dtype, change):
    """Apply ``change`` and compare answers, names and shapes; weights have to move."""
    before, answers = {key: value.clone() for key, value in model.state_dict().items()}, logits(model)
    with torch.no_grad():
        change()
    after = model.state_dict()
    assert {key: value.shape for key, value in before.items()} == {key: value.shape for key, value in after.items()}
    assert any(not torch.equal(value, after[key]) for key, value in before.items())
    assert relative_change(logits(model), answers) <= tolerance(name, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", DECLARED)
@pytest.mark.parametrize("kind", ["value_heads", "query_heads", "mlp"])
def test_spaces_inside_blocks_can_change_their_basis(kind, name, dtype):
    model = tiny(name, dtype)
    bases = list(getattr(invariances_of(model), kind).values())
    if kind == "query_heads" and name in UPCASTING:
        assert not bases  # RoPE
        return
    assert len(bases) == 2
    for basis in bases:
        check(name, model, dtype, lambda basis=basis: permute(basis, random_order(basis)))
        if kind != "mlp":
            check(name, model, dtype, lambda basis=basis: rotate(basis, random_rotation(basis)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", DECLARED)
def test_the_residual_stream_can_be_permuted(name, dtype):
    model = tiny(name, dtype)
    basis = invariances_of(model).residual.basis
    check(name, model, dtype, lambda: permute(basis, random_order(basis)))


def untied(name: str, dtype: torch.dtype):
    """A model whose head is its own, as far as the final norm needs it."""
    model = tiny(name, dtype)
    for view in needs_untying(invariances_of(model).residual):
        view.module.weight = torch.nn.Parameter(view.module.weight.detach().clone())
    return model, invariances_of(model).residual


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ROTATABLE)
def test_the_residual_stream_can_be_rotated_once_norms_are_folded(name, dtype):
    model, residual = untied(name, dtype)
    assert residual.rotatable and is_foldable(residual) and residual.centered == (name == "opt")
    check(name, model, dtype, lambda: fold(residual))
    assert all(bool((norm.weight == 1).all()) for norm, _ in residual.reads)
    check(name, model, dtype, lambda: rotate(residual.basis, random_rotation(residual.basis, residual.centered)))


def test_a_rotation_that_moves_the_mean_is_no_symmetry_of_layer_norm():
    model, residual = untied("opt", torch.float64)
    before = logits(model)
    with torch.no_grad():
        fold(residual)
        rotate(residual.basis, random_rotation(residual.basis))
    assert relative_change(logits(model), before) > 1e-2


@pytest.mark.parametrize("name", ["opt-post-norm", "bert", "bert-relu"])
def test_streams_that_are_read_without_a_norm_are_not_rotated(name):
    assert not invariances_of(tiny(name)).residual.rotatable


def test_a_norm_with_a_bias_and_a_zero_weight_cannot_be_folded():
    model = tiny("opt")
    with torch.no_grad():
        model.model.decoder.layers[0].final_layer_norm.weight[3] = 0
    assert not is_foldable(invariances_of(model).residual)


def test_a_tied_head_stays_tied_where_the_final_norm_is_constant():
    model = tiny("llama-tied-biased", torch.float64)
    with torch.no_grad():
        model.model.norm.weight.fill_(1.5)
    residual = invariances_of(model).residual
    assert not needs_untying(residual)
    with torch.no_grad():
        before = logits(model)
        fold(residual)
        rotate(residual.basis, random_rotation(residual.basis))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert relative_change(logits(model), before) <= 1e-5


@pytest.mark.parametrize(
    "build",
    [
        lambda: BertForSequenceClassification(BertConfig(**SMALL, intermediate_size=48)),
        lambda: BertForTokenClassification(BertConfig(**SMALL, intermediate_size=48)),
        lambda: BertForPreTraining(BertConfig(**SMALL, intermediate_size=48)),
        lambda: LlamaForSequenceClassification(LlamaConfig(**SMALL, intermediate_size=48)),
        lambda: OPTForSequenceClassification(OPTConfig(**SMALL, ffn_dim=48, word_embed_proj_dim=32)),
        lambda: OPTForCausalLM(OPTConfig(**SMALL, ffn_dim=48, word_embed_proj_dim=16)),
    ],
)
def test_other_heads_follow_the_stream(build):
    torch.manual_seed(0)
    model = build().eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.mul(3).double()
    residual, before = invariances_of(model).residual, answer(model)
    with torch.no_grad():
        permute(residual.basis, random_order(residual.basis))
    assert relative_change(answer(model), before) <= 1e-5
    if residual.rotatable and not needs_untying(residual):
        with torch.no_grad():
            fold(residual)
            rotate(residual.basis, random_rotation(residual.basis, residual.centered))
        assert relative_change(answer(model), before) <= 1e-5


def answer(model):
    with torch.no_grad():
        return model(input_ids=torch.randint(1, VOCABULARY, (2, 8), generator=torch.Generator().manual_seed(1)))[0]


@pytest.mark.parametrize(
    "model",
    [
        LlamaModel(LlamaConfig(**SMALL, intermediate_size=48)),
        BertModel(BertConfig(**SMALL, intermediate_size=48)),
    ],
)
def test_models_that_return_the_stream_keep_its_basis(model):
    assert invariances_of(model).residual is None and invariances_of(model).value_heads
