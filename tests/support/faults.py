"""Models and inputs with numerical faults, recipes of every kind, and what must hold of a run on them."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from support.mixtures import mixture
from support.models import block_weights, tiny, token_windows
from torch import Tensor
from transformers import PreTrainedModel

from optimum_si import NumericalError, SIConfig, SIPruner
from optimum_si.models.experts.unfused import experts_as_linears
from optimum_si.report.page import page


METHODS = {
    "magnitude": {"method": "magnitude", "induction": None},
    "wanda": {"method": "wanda", "induction": None},
    "sparsegpt": {"method": "sparsegpt", "induction": None},
    "swaps": {"method": "wanda", "induction": None, "swaps": True},
    "induced": {"method": "wanda", "induction": {"epochs": 1}},
    "induced sparsegpt": {"method": "sparsegpt", "induction": {"epochs": 1}},
    "exact": {"method": "wanda", "induction": None, "reconstruction": "exact"},
    "exact apart": {"method": "wanda", "induction": None, "reconstruction": "exact", "repair": 0},
    "exact sparsegpt": {"method": "sparsegpt", "induction": None, "reconstruction": "exact"},
    "admm": {"method": "wanda", "induction": None, "reconstruction": "admm"},
    "admm swaps": {"method": "wanda", "induction": None, "reconstruction": "admm", "swaps": True},
    "admm refined": {"method": "wanda", "induction": None, "reconstruction": "admm", "refine_epochs": 1},
    "admm allocated": {"method": "wanda", "induction": None, "reconstruction": "admm", "allocation": "error"},
    "owl": {"method": "sparsegpt", "induction": None, "allocation": "owl"},
    "int8": {"method": "sparsegpt", "induction": None, "quantization": "int8"},
    "int4": {"method": "wanda", "induction": None, "reconstruction": "admm", "quantization": "int4"},
    "rotated": {"method": "wanda", "induction": None, "transformations": ["residual", "heads"]},
    "permuted": {"method": "wanda", "induction": None, "transformations": ["permutation"]},
    "recovered": {
        "method": "wanda",
        "induction": None,
        "reconstruction": "admm",
        "recovery": {"num_samples": 0, "learning_rate": 1e-3},
    },
}
#: Recipes whose every layer has exactly the zeros of the uniform target.
UNIFORM = {name for name, recipe in METHODS.items() if "allocation" not in recipe and "quantization" not in recipe}


def _is_norm(name):
    return "norm" in name.lower() or "ln_" in name


def large(model, factor=6e4):
    """Rows near the end of what fp16 can hold."""
    for weight in matrices(model).values():
        weight[::4] *= factor / weight[::4].abs().max()


def scaled(factor):
    def scale(model):
        for weight in matrices(model).values():
            weight *= factor

    return scale


def one_huge(model):
    for weight in matrices(model).values():
        weight[0, 0] = torch.finfo(weight.dtype).max / 4


def dead_inputs(model):
    """Most channels of every norm are zero, and so is what layers read of them."""
    for name, parameter in model.named_parameters():
        if _is_norm(name):
            parameter[: len(parameter) * 3 // 4] = 0


def constant_inputs(model):
    model.get_input_embeddings().weight[:] = model.get_input_embeddings().weight[0]


def badly_scaled_inputs(model):
    for name, parameter in model.named_parameters():
        if _is_norm(name):
            parameter *= 10 ** torch.linspace(-4, 4, len(parameter), dtype=torch.float64).to(parameter)


def rank_deficient(model):
    """All channels of the stream are one another's copies."""
    model.get_input_embeddings().weight[:] = model.get_input_embeddings().weight[:, :1]


WEIGHTS = {
    "near the end": large,
    "tiny": scaled(1e-5),
    "one huge": one_huge,
    "dead inputs": dead_inputs,
    "constant inputs": constant_inputs,
    "badly scaled inputs": badly_scaled_inputs,
    "rank deficient": rank_deficient,
}
EXTREME = {"huge": scaled(1e30), "minute": scaled(1e-36)}  # of fp32 and bf16 alone
TOKENS = {
    "usual": token_windows(8, 16),
    "one token": token_windows(1, 1),
    "two tokens": token_windows(1, 2),
    "three tokens": token_windows(1, 3),
    "the same token": torch.full((4, 16), 7),
}


def faulty(name: str, fault: str, dtype: torch.dtype) -> PreTrainedModel:
    """A tiny model of a family or mixture, with the fault in its weights."""
    model = mixture(name, dtype) if name == "mixtral" else tiny(name, dtype)
    with torch.no_grad():
        {**WEIGHTS, **EXTREME, "none": lambda model: None}[fault](model)
    return model


def matrices(model: PreTrainedModel) -> dict[str, Tensor]:
    """[d_out, d_in] of every weight inside the blocks, those of experts among them, by the name of its layer."""
    with experts_as_linears(model):
        return block_weights(model)


def check(model: PreTrainedModel, recipe: dict[str, Any], tokens: Tensor, folder: Path) -> bool:
    """Prune; what comes of it is finite and counted, or the run ends with the layer's name and leaves no file.

    Returns:
        Whether the model was pruned.
    """
    pruner, output = SIPruner(model), folder / "out"
    before = {layer: int((weight == 0).sum()) for layer, weight in matrices(model).items()}
    try:
        pruner.prune(SIConfig(**recipe), tokens, save_dir=output, progress=False)
    except NumericalError as error:
        assert "layer " in str(error) or "model" in str(error)
        assert not output.exists()
        return False
    text = (output / "si_report.json").read_text()
    json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} in the report"))
    for parameter in model.parameters():
        assert torch.isfinite(parameter).all()
    assert page(pruner.report, "model", []) and pruner.report.summary() and pruner.report.table()
    weights = matrices(model)
    if "include" not in recipe:
        assert {layer.name for layer in pruner.report.layers} == weights.keys()
    for layer in pruner.report.layers:
        weight = weights[layer.name]
        zeros = int((weight == 0).sum())
        assert math.isclose(layer.sparsity, zeros / weight.numel(), abs_tol=1e-9)
        if "pattern" in recipe and "allocation" not in recipe:
            kept, group = map(int, recipe["pattern"].split(":"))
            assert ((weight.reshape(-1, group) != 0).sum(dim=1) <= kept).all(), layer.name
        # Each layer, or each of its rows, is cut at a whole number.
        if not {"allocation", "quantization"} & recipe.keys() and not before[layer.name]:
            asked = recipe["sparsity"] if "sparsity" in recipe else 1 - kept / group
            assert abs(zeros - asked * weight.numel()) < max(1, weight.shape[0] * (asked != 0.5)), layer.name
    return True
