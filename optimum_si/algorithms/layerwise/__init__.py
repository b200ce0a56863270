"""Pruning each layer for itself, as the method gives it."""
