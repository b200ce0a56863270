"""``optimum-cli si``: thin commands over the public API. Nothing here imports torch before a command runs."""
