"""Draws the figure of the README, docs/figures/gap.png, from what `optimum-cli si demo --embeddings` measured.

python docs/figures/draw.py
"""

from pathlib import Path

from matplotlib.figure import Figure


#: Mean cosine of sentence embeddings to the dense model's: {target: {method: (plain, with induction)}}.
MEASURED = {
    "50% zeros": {"magnitude": (0.726, 0.908), "Wanda": (0.860, 0.912), "SparseGPT": (0.918, 0.928)},
    "2:4": {"magnitude": (0.602, 0.839), "Wanda": (0.736, 0.837), "SparseGPT": (0.862, 0.876)},
}
PLAIN, INDUCED, TEXT = "#c9ced6", "#0d7a6b", "#1d2433"


def main() -> None:
    figure = Figure(figsize=(8, 2.7), layout="constrained")
    for axes, (target, methods) in zip(figure.subplots(1, 2, sharex=True), MEASURED.items(), strict=True):
        for place, (plain, induced) in enumerate(methods.values()):
            first = place == 0
            axes.barh(place, induced, height=0.62, color=INDUCED, label="with Sparsity Induction" if first else None)
            axes.barh(place, plain, height=0.62, color=PLAIN, label="plain" if first else None)
            axes.text(1.02, place, f"{plain:.3f} → {induced:.3f}", va="center", fontsize=9, color=TEXT)
        axes.set_yticks(range(len(methods)), list(methods), color=TEXT)
        axes.invert_yaxis()
        axes.set_xlim(0.4, 1.25)
        axes.set_xticks([0.4, 0.6, 0.8, 1.0])
        axes.axvline(1, color="#8a93a3", linewidth=1, linestyle=":")
        axes.set_title(target, loc="left", fontsize=11, fontweight="bold", color=TEXT)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0, labelsize=9)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    figure.savefig(Path(__file__).with_name("gap.png"), dpi=160, facecolor="white")


if __name__ == "__main__":
    main()
