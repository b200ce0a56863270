"""Rounding of kept weights to the grid of a quantized export, with the Hessian repairing what rounding breaks."""
