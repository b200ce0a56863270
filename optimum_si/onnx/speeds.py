"""Speed, memory and size that were measured, as a table and as a chart."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from optimum_si.errors import SIError
from optimum_si.report import format_table


@dataclass(frozen=True)
class Speed:
    """What one directory measured.

    Args:
        name: name of the directory.
        runtime: "PyTorch" or "ONNX Runtime".
        megabytes: size of the files that hold graph and weights.
        load_seconds: time until the first run may start, imports aside.
        prefill: tokens per second of a prompt (encoders: of a forward pass).
        decode: tokens per second after it; None for encoders.
        peak_megabytes: most memory of the process, beyond what it held before loading.
    """

    name: str
    runtime: str
    megabytes: float
    load_seconds: float
    prefill: float
    decode: float | None
    peak_megabytes: float

    def to_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)


def summary(speeds: list[Speed]) -> str:
    """A table; ratios are to the first directory."""
    first = speeds[0]

    def ratio(value: float | None, base: float | None, digits: int = 1) -> str:
        if value is None or not base:
            return "-"
        return f"{value:.{digits}f} ({value / base:.2f} x)"

    header = ["directory", "runtime", "MB", "load s", "peak MB", "prefill tokens/s", "decode tokens/s"]
    rows = [
        [
            speed.name,
            speed.runtime,
            ratio(speed.megabytes, first.megabytes),
            ratio(speed.load_seconds, first.load_seconds, 2),
            ratio(speed.peak_megabytes, first.peak_megabytes, 0),
            ratio(speed.prefill, first.prefill, 0),
            ratio(speed.decode, first.decode, 0),
        ]
        for speed in speeds
    ]
    return f"{format_table(header, rows)}\nmedians of interleaved runs; ratios to {first.name}"


def plot(speeds: list[Speed], path: Path) -> None:
    """A bar chart of tokens per second.

    Raises:
        SIError: when matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SIError('the chart needs matplotlib: pip install "optimum-si[report]".') from error
    phases = [("prefill", [speed.prefill for speed in speeds])]
    if any(speed.decode for speed in speeds):
        phases.append(("decode", [speed.decode or 0 for speed in speeds]))
    figure = Figure(figsize=(4.5 * len(phases), 0.6 * len(speeds) + 1.4), layout="constrained")
    for axes, (name, values) in zip(figure.subplots(1, len(phases), squeeze=False)[0], phases, strict=True):
        bars = axes.barh([speed.name for speed in speeds], values, color="#4c72b0")
        axes.bar_label(bars, fmt="%.0f", padding=3)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set_title(f"{name}, tokens per second")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
