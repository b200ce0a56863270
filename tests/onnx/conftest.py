"""Exports of tiny models, each made once for all tests."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.models import calibration, prune, tiny
from support.onnx_models import CAUSAL, causal

from optimum_si.onnx import export


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, traced_once) -> Callable[..., Path]:
    """exported(name, values="fp32", device="cpu"): the directory of an export."""
    folder = tmp_path_factory.mktemp("exports")

    def directory(name: str, **options: str) -> Path:
        path = folder / "-".join([name, *options.values()])
        if not path.exists():
            model = causal(name) if name in CAUSAL else tiny(name)
            with traced_once():
                export(model, path, **options)
        return path

    return directory


@pytest.fixture(scope="session")
def exported_pruned(tmp_path_factory: pytest.TempPathFactory, traced_once) -> Callable[..., Path]:
    """exported_pruned(values): a Llama, pruned to 2:4."""
    folder = tmp_path_factory.mktemp("pruned")
    pruner = prune(causal("llama"), "wanda", calibration("llama"), pattern="2:4", induction=None)
    pruner.save_pretrained(folder / "checkpoint")

    def directory(values: str = "fp32", device: str = "cpu") -> Path:
        path = folder / f"{values}-{device}"
        if not path.exists():
            with traced_once():
                export(folder / "checkpoint", path, values=values, device=device)
        return path

    return directory
