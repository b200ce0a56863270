"""Transformations of a whole model beyond scales: rotations and permutations, absorbed exactly."""
