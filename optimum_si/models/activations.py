"""Activations that let a scale through: f(s x) = s^degree f(x) for s > 0."""

from typing import Any


#: By the name that a config has for an activation; s passes as s ** (1 / degree). Others let no scale through.
HOMOGENEOUS_DEGREE = {"relu": 1, "leaky_relu": 1, "relu2": 2, "linear": 1}

_BY_CLASS = {"ReLU": 1, "LeakyReLU": 1, "ReLUSquaredActivation": 2, "LinearActivation": 1, "Identity": 1}


def degree_of(activation: Any) -> int | None:
    """The degree of a module or function, or None where it lets no scale through, or is not known."""
    return _BY_CLASS.get(type(activation).__name__)
