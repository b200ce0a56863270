"""Rounding of kept weights to the grid of a quantised export, with the Hessian repairing what rounding breaks."""
