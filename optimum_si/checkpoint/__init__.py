"""Checkpoints on disk: loading, saving, and what lies beside the weights."""
