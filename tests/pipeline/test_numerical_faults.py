"""A result is finite and has exactly the zeros asked for, or there is none: whatever weights and inputs are like."""

import pytest
import torch
from support.faults import EXTREME, METHODS, TOKENS, WEIGHTS, check, faulty


#: What `make test` tries: the narrowest dtype, the least data. `make test-all` tries everything with everything.
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "target", [pytest.param({"sparsity": 0.5}, marks=SLOW), {"pattern": "2:4"}], ids=["50%", "2:4"]
)
@pytest.mark.parametrize(
    "tokens",
    [
        "usual",
        "two tokens",
        *(pytest.param(name, marks=SLOW) for name in list(TOKENS) if name not in ("usual", "two tokens")),
    ],
)
@pytest.mark.parametrize("fault", [*WEIGHTS, *EXTREME, "none"])
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    "dtype",
    [torch.float16, *(pytest.param(dtype, marks=SLOW) for dtype in (torch.float32, torch.bfloat16))],
    ids=str,
)
def test_a_result_is_finite_and_counted_or_there_is_none(tmp_path, name, dtype, fault, tokens, target):
    if fault in EXTREME and dtype is torch.float16:
        pytest.skip("beyond fp16 as it is")
    if tokens in ("one token", "three tokens") and dtype is not torch.float16:
        pytest.skip("so few tokens in the narrowest dtype alone; two in every one")
    if tokens == "one token" and "pattern" not in target:
        pytest.skip("one token for patterns alone")
    if "permuted" in name and "pattern" not in target:
        pytest.skip("channels are permuted for patterns")
    if METHODS[name].get("allocation") == "error" and "pattern" in target:
        pytest.skip("2:4 leaves no choice of N")
    if name == "recovered" and len(TOKENS[tokens]) == 1:
        pytest.skip("a recovery needs two windows")
    pruned = check(faulty("llama", fault, dtype), {**METHODS[name], **target}, TOKENS[tokens], tmp_path)
    assert pruned or fault != "none" or tokens != "usual"


@pytest.mark.parametrize("tokens", ["usual", pytest.param("one token", marks=SLOW)])
@pytest.mark.parametrize("fault", [*WEIGHTS, *EXTREME])
@pytest.mark.parametrize(
    "name", [one if one in ("wanda", "admm") else pytest.param(one, marks=SLOW) for one in METHODS]
)
@pytest.mark.parametrize("model", ["mixtral", "bert", "gpt2"])
def test_so_it_is_of_experts_encoders_and_fused_layers(tmp_path, model, name, fault, tokens):
    if METHODS[name].get("allocation") == "error":
        pytest.skip("2:4 leaves no choice of N")
    if name not in ("wanda", "sparsegpt", "admm", "admm refined", "induced", "int8") and (
        tokens == "one token" or model != "mixtral"
    ):
        pytest.skip("one of each kind")
    if name == "recovered" and len(TOKENS[tokens]) == 1:
        pytest.skip("a recovery needs two windows")
    check(faulty(model, fault, torch.bfloat16), {**METHODS[name], "pattern": "2:4"}, TOKENS[tokens], tmp_path)
