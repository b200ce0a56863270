"""Transformations beyond scales that leave a model's function as it is: rotations and permutations, absorbed exactly.

Importing this package needs no torch, so that the command line can list them at once.
"""

TRANSFORMATIONS = ("residual", "heads", "permutation")
