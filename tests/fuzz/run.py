"""Fuzz for some minutes: all of ``tests/fuzz`` in turn, with other examples each time.

    make fuzz MINUTES=30

What fails is kept in ``tests/fuzz/corpus`` and is tried first from then on; commit it with what mends it.
"""

import argparse
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path


HERE = Path(__file__).parent
#: Examples of each test in a turn.
EXAMPLES = 500


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="(default: %(default)s)")
    args = parser.parse_args()
    stop, turns = time.monotonic() + 60 * args.minutes, 0
    files = sorted(HERE.glob("test_*.py"))
    while time.monotonic() < stop:
        file, seed = files[turns % len(files)], secrets.randbelow(2**32)
        words = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            str(file),
            f"--hypothesis-seed={seed}",
            "-p",
            "no:cacheprovider",
        ]
        print(f"{file.name}, seed {seed}", flush=True)
        done = subprocess.run(words, env={**os.environ, "SI_FUZZ_EXAMPLES": str(EXAMPLES)})
        if done.returncode:
            return done.returncode
        turns += 1
    print(f"{turns} turns of {EXAMPLES} examples a test: nothing was found.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
