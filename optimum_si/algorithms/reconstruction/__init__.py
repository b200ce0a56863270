"""Fitting the weights that are kept: least squares per layer, layer after layer, and whole blocks by gradient."""
