"""The one place that states the version (hatchling reads it, checkpoints record it)."""

__version__ = "0.1.0"
