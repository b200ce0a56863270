"""Names that a recipe accepts. Methods are the files in ``algorithms/pruning/methods``, which need no import."""

import re
from pathlib import Path

from optimum_si.errors import ConfigurationError


_METHODS = Path(__file__).parent.parent / "algorithms" / "pruning" / "methods"

METHODS = tuple(sorted(file.stem for file in _METHODS.glob("*.py") if file.stem != "__init__"))
COMPARISON_GROUPS = ("row", "layer")
#: How kept weights are fitted afterwards: not at all, on the method's mask, or on the better of that and ADMM's mask.
RECONSTRUCTIONS = ("none", "exact", "admm")
#: How zeros are shared out over layers.
ALLOCATIONS = ("uniform", "owl", "error")
#: Grids that kept weights can be rounded to, those of the exports of the same name.
QUANTIZATIONS = ("none", "int8", "int4")
#: Transformations beyond scales that leave a model's function as it is, in the order in which they are applied.
TRANSFORMATIONS = ("residual", "heads", "permutation")
#: What SparseGPT's damping is a share of: the mean of the diagonal, or each of its entries.
DAMPING_MODES = ("mean", "channel")
#: How learned scales start.
INITIALIZATIONS = ("auto", "ones", "activation", "robust")
#: What learning scales lowers.
OBJECTIVES = ("normalized", "mse")
#: Schatten norms of Eq. 8.
SPECTRAL_NORMS = (1, 2, "inf")


def parse_pattern(pattern: str) -> tuple[int, int]:
    """ "2:4" -> (2, 4): at most N = 2 non-zeros in every M = 4 consecutive input weights.

    Raises:
        ConfigurationError: when the text is not "N:M" with 1 <= N < M <= 9999.
    """
    match = re.fullmatch(r"([0-9]{1,4}):([0-9]{1,4})", pattern) if isinstance(pattern, str) else None
    if match is None or not 1 <= int(match[1]) < int(match[2]):
        is_long = isinstance(pattern, int) and abs(pattern) > 10**30
        given = "an integer of many digits" if is_long else repr(pattern)[:200]
        raise ConfigurationError(
            f"pattern={given} is not understood; accepted: 'N:M' with 1 <= N < M (at most N non-zeros in every M "
            "consecutive input weights), such as '2:4' or '4:8'."
        )
    return int(match[1]), int(match[2])
