"""Whatever is pruned by whatever recipe: the result is finite and counted, or there is none."""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from support.faults import EXTREME, METHODS, WEIGHTS, check, faulty
from support.fuzzing import fuzzed_runs
from support.models import token_windows

from optimum_si import CalibrationError, ConfigurationError


MODELS = st.sampled_from(["llama", "opt", "gpt2", "bert", "mixtral", "llama-tied-biased"])
DTYPES = st.sampled_from([torch.float32, torch.float16, torch.bfloat16])
TARGETS = st.floats(0.01, 0.99).map(lambda share: {"sparsity": share}) | st.sampled_from(
    [{"pattern": pattern} for pattern in ("2:4", "4:8", "1:4", "3:4", "1:2")]
)
FURTHER = st.fixed_dictionaries(
    {},
    optional={
        "damping": st.floats(1e-6, 1.0),
        "repair": st.floats(0, 1),
        "seed": st.integers(0, 2**31),
        "include": st.sampled_from([["*down*", "*fc2*", "*.output.dense", "*c_proj"], ["*"]]),
    },
)
TOKENS = st.tuples(st.integers(1, 5), st.integers(1, 20), st.integers(0, 9), st.booleans())


@fuzzed_runs
@given(
    MODELS,
    DTYPES,
    st.sampled_from([*WEIGHTS, *EXTREME, "none"]),
    st.sampled_from([*METHODS]),
    TARGETS,
    FURTHER,
    TOKENS,
)
@example("opt", torch.float16, "one huge", "induced", {"sparsity": 0.5}, {}, (1, 1, 0, False))
@pytest.mark.filterwarnings("ignore")
def test_a_run_ends_finite_and_counted_or_with_one_line(
    tmp_path_factory, name, dtype, fault, method, target, further, tokens
):
    count, length, seed, same = tokens
    windows = token_windows(count, length, seed)
    windows = torch.full_like(windows, seed + 1) if same else windows
    if fault in EXTREME and dtype is torch.float16:
        fault = "none"
    try:
        model = faulty(name, fault, dtype)
        check(model, {**METHODS[method], **target, **further}, windows, tmp_path_factory.mktemp("run"))
    except (ConfigurationError, CalibrationError) as error:
        assert str(error) and len(str(error)) < 4000
