"""Biases that an architecture can declare and a model was trained without."""

from typing import Any

from torch import nn

from .structure import Structure


def add_biases(model: nn.Module, structure: Structure) -> list[str]:
    """Give zero biases to layers that can declare them in the model's config, and say so there.

    Returns:
        The config fields that were switched on; empty where the architecture declares none.
    """
    config: Any = model.config
    switched = []
    for setting, names in structure.family.new_biases.items():
        if not hasattr(config, setting):
            continue
        for block in structure.blocks:
            for name in names:
                module = block.views[name].module
                if module.bias is None:
                    weight = block.views[name].tensor()
                    module.bias = nn.Parameter(weight.detach().new_zeros(weight.shape[0]), weight.requires_grad)
        setattr(config, setting, True)
        switched.append(setting)
    return switched
