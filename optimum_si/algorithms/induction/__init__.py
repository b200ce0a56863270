"""Sparsity Induction: scales, shifts, their objective, and their absorption into existing weights."""
