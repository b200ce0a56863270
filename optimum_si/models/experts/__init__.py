"""Experts as linear layers: while a model is pruned, each matrix of its stacked expert weights is an ``nn.Linear``."""
