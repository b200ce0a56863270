"""Which layers choose experts, and which only look like it."""

from types import SimpleNamespace

import pytest
from support.zoo import ZOO

from optimum_si.models.experts.unfused import experts_as_linears
from optimum_si.models.routers import is_router
from optimum_si.models.structure import find_structure


@pytest.mark.parametrize(
    ("name", "rows", "expected"),
    [
        ("mlp.gate", 8, True),
        ("mlp.gate.wg", 8, True),
        ("mlp.shared_expert_gate", 1, True),
        ("mlp.router.layer", 6, True),
        ("modality_router", 3, True),
        ("mlp.gate", 6, False),
        ("mlp.shared_expert.gate_proj", 8, False),
        ("mlp.experts.3.gate_up_proj", 8, False),
        ("self_attn.output_gate", 64, False),
    ],
)
@pytest.mark.parametrize("counts", [{"num_experts": 8}, {"moe_num_experts": [4, 8]}], ids=str)
def test_a_router_has_a_row_for_each_expert_and_is_called_one(name, rows, expected, counts):
    assert is_router(name, rows, SimpleNamespace(**counts)) == expected


def test_the_router_of_hunyuan_is_not_pruned():
    model = ZOO["HunYuanMoEV1ForCausalLM"].build()
    with experts_as_linears(model):
        names = {view.name for block in find_structure(model).blocks for view in block.views.values()}
    assert any("experts" in name for name in names) and not [name for name in names if name.endswith("gate.wg")]


def test_a_router_is_not_said_to_be_untreated():
    model = ZOO["MixtralForCausalLM"].build()
    with experts_as_linears(model):
        assert find_structure(model).untreated == []
