"""Whatever a recipe is made of: it is a recipe, or a ConfigurationError of one line."""

import json

from hypothesis import given
from hypothesis import strategies as st
from support.fuzzing import fuzzed

from optimum_si import ConfigurationError, SIConfig
from optimum_si.config.fields import groups, options
from optimum_si.config.si_config import SIConfig as Recipe


NAMES = sorted(options(Recipe))
GROUPS = {name: sorted(options(kind)) for name, kind in groups(Recipe).items()}
WORDS = [
    "wanda",
    "sparsegpt",
    "magnitude",
    "admm",
    "exact",
    "none",
    "2:4",
    "4:8",
    "16:32",
    "auto",
    "inf",
    "error",
    "owl",
]
ODD = [
    0, 1, -1, 2, 8, 10**9, 2**63, 2**64, -(2**70), 10**4000, 0.5, 1.0, 1e-320, 1e308, float("nan"), float("inf"),
    True, False, None, "", " ", "٢:٤", "2：4", "0x10", "1_0", "\x1b[31m", "a\0b", "x" * 10_000, b"2:4",
    [], {}, [[]], [None], ["*.mlp.*"], ("*",), {"a": 1}, object(), int, 2 + 0j,
]  # fmt: skip
VALUES = st.one_of(
    st.sampled_from([*WORDS, *ODD]),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.text(max_size=4), max_size=3),
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=2), max_leaves=6
    ),
)
FIELDS = {
    name: VALUES | st.dictionaries(st.sampled_from(GROUPS[name]) | st.text(max_size=5), VALUES, max_size=3)
    if name in GROUPS
    else VALUES
    for name in NAMES
}
RECIPES = st.dictionaries(st.sampled_from(NAMES), st.none(), max_size=4).flatmap(
    lambda chosen: st.fixed_dictionaries({name: FIELDS[name] for name in chosen})
)


@fuzzed
@given(RECIPES, st.sampled_from([None, "fast", "best", "paper"]))
def test_a_recipe_is_valid_or_refused(values, preset):
    try:
        config = SIConfig(**values) if preset is None else SIConfig.preset(preset, **values)
    except ConfigurationError as error:
        message = str(error)
        assert message and len(message) < 4000
        return
    saved = json.loads(json.dumps(config.to_dict(), allow_nan=False))
    assert SIConfig(**saved) == config


@fuzzed
@given(
    st.binary(max_size=200)
    | st.recursive(
        VALUES.filter(lambda v: isinstance(v, (int, float, str, type(None)))),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    ).map(lambda value: _bytes(value))
)
def test_a_saved_recipe_is_read_or_refused(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "si_config.json").write_bytes(content)
    try:
        SIConfig.from_pretrained(folder)
    except (ConfigurationError, OSError) as error:
        assert str(error)


def _bytes(value):
    try:
        return json.dumps(value).encode("utf-8", "surrogatepass")
    except (ValueError, TypeError):
        return b"{"
