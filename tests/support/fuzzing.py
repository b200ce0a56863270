"""Fuzzing: a few examples of each kind in every run of the tests, and as many as fit in with `make fuzz MINUTES=30`.

What once failed is in ``corpus``, kept by hypothesis, and is tried first.
"""

import os
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis.database import DirectoryBasedExampleDatabase


CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"
LONG = "SI_FUZZ_EXAMPLES" in os.environ

#: `make fuzz` sets how many examples, and draws other ones at every call.
fuzzed = settings(
    max_examples=int(os.environ.get("SI_FUZZ_EXAMPLES", "60")),
    database=DirectoryBasedExampleDatabase(CORPUS) if LONG else None,
    derandomize=not LONG,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
#: Of whole runs, which take up to a second each, a third as many.
fuzzed_runs = settings(fuzzed, max_examples=max(1, fuzzed.max_examples // 3))
