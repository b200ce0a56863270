"""Pairs that are found without being declared: nearly all that hold, and none that does not or was forgotten."""

import pytest
import torch
from support.families import DECODERS, FOUND, OTHERS, blocks_called, family_inputs, family_model
from support.models import relative_change
from torch import nn

from optimum_si import SIConfig, SIPruner
from optimum_si.models.experts.unfused import experts_as_linears
from optimum_si.models.finding.find import found_pairs, groups_of
from optimum_si.models.finding.finder import Finder
from optimum_si.models.finding.proof import Proof
from optimum_si.models.finding.spec import Spec
from optimum_si.models.forward.stops import Stop
from optimum_si.models.structure import find_structure
from optimum_si.models.weight_view import linear_views


#: Llama 4's experts read tokens that were weighted, not the output of the norm.
UNSEEN = {"llama4": {"post_attention_layernorm->feed_forward"}}


def places(group):
    """Where a scale enters, whatever its name."""
    rows_only = group.rows_only
    axes = {
        (scaled.view.owner, scaled.view.part, scaled.axis if rows_only else scaled.power > 0) for scaled in group.axes
    }
    return frozenset(axes), frozenset(map(id, group.norms))


@pytest.mark.parametrize("name", [*DECODERS, *OTHERS])
def test_what_families_declare_is_what_is_found_untold(name):
    with blocks_called(name) as blocks:
        for block, stop in blocks:
            found = {
                _named(block, places(group)): group
                for group in groups_of(found_pairs(block.module, block.views, stop), block.module, block.views)
            }
            # Experts know their pairs by their layout.
            declared = [group for group in block.scale_groups if ".experts." not in group.name]
            missing = {group.name for group in declared if _named(block, places(group)) not in found}
            assert missing == UNSEEN.get(name, set())
            told = {_named(block, places(group)) for group in block.scale_groups}
            assert not {group.name for where, group in found.items() if where not in told}  # forgotten by the page
            for group in declared:
                same = found.get(_named(block, places(group)))
                assert same is None or same.size >= group.size  # no channels share a scale that need not


def _named(block, entries):
    axes, norms = entries
    inside = f"{block.name}."
    return frozenset((owner.removeprefix(inside), part, side) for owner, part, side in axes), norms


@pytest.mark.parametrize("name", FOUND)
def test_what_is_found_leaves_the_function_as_it_was(name):
    model = family_model(name)
    inputs = family_inputs(name, model)
    data = [{key: value[row : row + 1] for key, value in inputs.items()} for row in (0, 1, 2, 0)]
    stored = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        before = model(**inputs).logits
    pruner = SIPruner(model)
    config = SIConfig("magnitude", pattern="2:4", induction={"epochs": 6, "learning_rate": 0.04})
    with pytest.warns(UserWarning, match="not declared"):
        pruner.induce(config, data, progress=False)
    with torch.no_grad():
        assert relative_change(model(**inputs).logits, before) < 1e-5
    assert any(not torch.equal(value, stored[key]) for key, value in model.state_dict().items())
    with experts_as_linears(model):
        pruner.scales.taken_out(find_structure(model).blocks)
    assert all(torch.equal(value, stored[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["gpt-neo-pairs", "switch"])
def test_found_pairs_are_taken_out_of_a_saved_model_by_their_names(name, dtype, tmp_path):
    inputs = family_inputs(name, family_model(name))
    data = [{key: value[row : row + 1] for key, value in inputs.items()} for row in (0, 1, 2, 0)]
    config = SIConfig("wanda", pattern="2:4", induction={"epochs": 4, "learning_rate": 0.04})
    with pytest.warns(UserWarning, match="not declared"):
        SIPruner(family_model(name, dtype)).induce(config, data, tmp_path, progress=False)
        later = SIPruner.from_pretrained(tmp_path)
        later.prune(config, data, progress=False)
        at_once = SIPruner(family_model(name, dtype))
        at_once.prune(config, data, progress=False)
    expected = at_once.model.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in later.model.state_dict().items())


class Made(nn.Module):
    """A block whose layers are put together by a function."""

    def __init__(self, way, norm=None, hidden=12):
        super().__init__()
        self.norm = nn.LayerNorm(8) if norm is None else norm
        self.up, self.gate, self.down = nn.Linear(8, hidden), nn.Linear(8, hidden), nn.Linear(hidden, 8)
        self._way = way

    def forward(self, hidden):
        return self._way(self, hidden)


def found_in(way, tokens=24, **options):
    torch.manual_seed(0)
    block = Made(way, **options)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter) + (parameter.ndim == 1))
    views = {view.name: view for view in linear_views(block, "")}
    stop = Stop.of(0, (torch.randn(1, tokens, 8),), {})
    return {str(spec) for spec in found_pairs(block, views, stop)}


def mlp(act, norm_feeds_residual=False):
    def way(block, hidden):
        normed = block.norm(hidden)
        return (normed if norm_feeds_residual else hidden) + block.down(act(block, normed))

    return way


def test_activations_let_through_what_they_can():
    relu = found_in(mlp(lambda block, x: block.up(x).relu()))
    assert relu == {"norm->up", "up->down"}
    assert found_in(mlp(lambda block, x: block.up(x).relu().square())) == {"norm->up", "up->down, degree 2"}
    assert found_in(mlp(lambda block, x: nn.functional.gelu(block.up(x)))) == {"norm->up"}
    gated = found_in(mlp(lambda block, x: block.up(x) * nn.functional.silu(block.gate(x))))
    assert gated == {"norm->up,gate", "up->down"}


def test_a_norm_that_feeds_the_residual_too_is_left_alone():
    assert found_in(mlp(lambda block, x: block.up(x).relu(), norm_feeds_residual=True)) == {"up->down"}


@pytest.mark.parametrize(
    "act",
    [
        lambda block, x: block.up(x).clamp(-100, 100),
        lambda block, x: block.up(x).relu() + 1,
        lambda block, x: torch.nn.functional.relu6(block.up(x)),
        lambda block, x: block.up(x).sort(dim=-1).values,
    ],
    ids=["far clip", "plus one", "relu6", "sorted"],
)
def test_what_only_seems_to_hold_is_not_found(act):
    assert not {name for name in found_in(mlp(act)) if name.startswith("up->")}


def test_a_single_token_shows_nothing():
    block = Made(mlp(lambda block, x: block.up(x).relu()))
    views = {view.name: view for view in linear_views(block, "")}
    assert Finder(frozenset()).groups(block, views, [Stop.of(0, (torch.randn(1, 1, 8),), {})]) == []


def test_parameters_with_another_use_are_left_out():
    block = Made(mlp(lambda block, x: block.up(x).relu()))
    views = {view.name: view for view in linear_views(block, "")}
    stops = [Stop.of(0, (torch.randn(1, 24, 8),), {})]
    assert len(Finder(frozenset()).groups(block, views, stops)) == 2
    kept = Finder(frozenset({id(block.norm.weight)})).groups(block, views, stops)
    assert [group.name for group in kept] == ["up->down"]


def test_what_one_block_shows_is_proven_in_the_next():
    """Two blocks of one make, of which the second has another activation."""
    finder = Finder(frozenset())
    for act, expected in ((torch.relu, ["norm->up", "up->down"]), (nn.functional.gelu, ["norm->up"])):
        block = Made(mlp(lambda block, x, act=act: act(block.up(x))))
        views = {view.name: view for view in linear_views(block, "")}
        groups = finder.groups(block, views, [Stop.of(0, (torch.randn(1, 24, 8),), {})])
        assert [group.name for group in groups] == expected


def test_a_pair_is_made_again_from_its_name():
    for spec in (
        Spec("norm", ("a.q", "a.k", "mlp.experts.*")),
        Spec("up", ("down",), degree=2),
        Spec("v", ("o",), head_size=8),
        Spec("q", ("k",), both_rows=True),
        Spec("q", ("k",), both_rows=True, head_size=8, rotary_size=4, interleaved=True),
    ):
        assert Spec.parsed(str(spec)) == spec
    assert Spec.parsed("input of up,gate") is None


def test_a_proof_writes_nothing():
    with blocks_called("gemma") as blocks:
        block, stop = blocks[0]
        before = {key: value.clone() for key, value in block.module.state_dict().items()}
        proof = Proof(block.module, stop)
        assert proof.all_hold(block.scale_groups)
        assert all(torch.equal(value, before[key]) for key, value in block.module.state_dict().items())
