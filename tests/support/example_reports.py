"""Reports that no run had to make."""

import math
from collections.abc import Sequence

from optimum_si.report import BlockReport, Importance, LayerReport, Report, Spectrum


KINDS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def example(blocks: int = 4, induction: bool = True, prefix: str = "model.layers", experts: int = 0) -> Report:
    """A report of ``blocks`` blocks, with every number that a run can give.

    A block has seven layers, or an eighth and more that are experts of three kinds each, none like another's.
    """
    kinds = [*KINDS, *(f"expert_{index}.{kind}" for index in range(experts) for kind in KINDS[4:])]
    entries = [_block(f"{prefix}.{index}", index, induction, kinds) for index in range(blocks)]
    layer = entries[blocks // 2].layers[1].name
    spectrum = Spectrum(layer, list(range(64)), [64.0 - n for n in range(64)], [60 - 0.9 * n for n in range(64)])
    return Report(
        "prune",
        "wanda",
        "2:4",
        induction,
        entries,
        parameters=8_030_261_248,
        zeros=blocks * len(kinds) * 32 * 64 // 2,
        calibration_windows=128,
        calibration_tokens=262_144,
        seconds=3700.0,
        architecture="LlamaForCausalLM",
        spectrum=spectrum,
        perplexity=(12.5, 1875.0),
    )


def _block(name: str, index: int, induction: bool, kinds: Sequence[str]) -> BlockReport:
    scales = (0.5, 1.0, 2.25, True, 0.8, 1.25) if induction else ()
    errors = [0.01 * (position + 1) for position in range(len(kinds))]
    layers = [
        LayerReport(f"{name}.{kind}", (32, 64), 0.5, 0.5, 1.1 * error if induction else None, error, *scales)
        for kind, error in zip(kinds, errors, strict=True)
    ]
    losses = (0.2 + 0.1 * index, 0.1 + 0.1 * index) if induction else (None, None)
    scores = Importance(-6.0, 2.0, _bell(44), _bell(42) if induction else None)
    return BlockReport(name, "induced" if induction else "plain", *losses, 1.5, layers, scores)


def _bell(center: int) -> list[float]:
    values = [math.exp(-(((bin_index - center) / 5) ** 2)) for bin_index in range(64)]
    return [round(value / sum(values), 5) for value in values]
