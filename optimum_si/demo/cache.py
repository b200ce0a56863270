"""Where the demo keeps models that take long to get."""

import os
from pathlib import Path


def cache_root() -> Path:
    """The library's folder in the user's cache; XDG_CACHE_HOME moves it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "optimum-si"
