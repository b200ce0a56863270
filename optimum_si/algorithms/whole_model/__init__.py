"""A model run as a whole with gradients: its answers, how far they are from others, how it is set up meanwhile."""
