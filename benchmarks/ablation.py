"""What every mechanism brings: each alone, then one added to the other, then the presets. For ``quality.py --all``."""

import json
from collections.abc import Iterable
from typing import Any

from subjects import Encoder, LanguageModel, subject

from optimum_si import SIConfig, SIPruner
from optimum_si.config.choices import TRANSFORMATIONS
from optimum_si.report import format_table


TARGETS = ("50%", "2:4", "70%")
PLAIN: dict[str, Any] = {"method": "wanda", "induction": None}

#: Mechanisms on top of plain Wanda, each alone. Without a pattern only: what ranks or shares out weights freely.
ALONE: dict[str, dict[str, Any]] = {
    "Wanda": {},
    "SparseGPT": {"method": "sparsegpt"},
    "induction": {"induction": True},
    "rotation of the stream": {"transformations": ["residual"]},
    "rotation of heads": {"transformations": ["heads"]},
    "permutation": {"transformations": ["permutation"]},
    "all three": {"transformations": list(TRANSFORMATIONS)},
    "swaps": {"swaps": True},
    "layer group": {"comparison_group": "layer"},
    "OWL allocation": {"allocation": "owl"},
    "error allocation": {"allocation": "error"},
    "exact fit": {"reconstruction": "exact", "repair": 0},
    "ADMM": {"reconstruction": "admm", "repair": 0},
    "ADMM, repair": {"reconstruction": "admm"},
    "refinement": {"refine_epochs": 5},
}
#: Added one by one to plain Wanda.
ADDED: dict[str, dict[str, Any]] = {
    "+ ADMM": {"reconstruction": "admm", "repair": 0},
    "+ repair": {"repair": "auto"},
    "+ refinement": {"refine_epochs": 5},
    "+ layer group": {"comparison_group": "layer"},
    "+ error allocation": {"allocation": "error"},
    "+ transformations": {"transformations": list(TRANSFORMATIONS)},
}
PRESETS = {
    "preset paper": ("paper", {}),
    "preset fast": ("fast", {}),
    "preset best": ("best", {}),
    "best with induction": ("best", {"induction": True}),
}
#: Patterns fix these.
FREE_ONLY = ("comparison_group", "allocation")


def run(models: Iterable[str], targets: Iterable[str], args: Any) -> None:
    """Measure row by row and print the tables; cells that ``args.json`` holds already are not measured again."""
    cells = json.loads(args.json.read_text()) if args.json and args.json.is_file() else {}
    subjects = [subject(name, args.windows, args.length, args.test_windows) for name in models]
    columns = [(model, target) for model in subjects for target in targets]
    for model in subjects:
        if f"{model.name} dense" not in cells:
            cells[f"{model.name} dense"] = {**model.measure(SIPruner.from_pretrained(model.path).model), "seconds": 0}
    for row, recipe in rows():
        if args.rows and row not in args.rows:
            continue
        for model, target in columns:
            key = f"{model.name} {target} {row}"
            config = None if key in cells else recipe_for(recipe, target, model)
            if config is not None:
                pruner = model.pruned(config)
                cells[key] = {**model.measure(pruner.model), "seconds": pruner.report.seconds}
                print(key, *(f"{name} {value:.4g}" for name, value in cells[key].items()), flush=True)
                if args.json:
                    args.json.write_text(json.dumps(cells, indent=1) + "\n", encoding="utf-8")
    for kind, title in (("same", "Text of the calibration's kind"), ("other", "Text of another kind")):
        print(f"\n{title}; in brackets the share of plain Wanda's gap to the dense model that is closed\n")
        print(table(cells, columns, kind))
    print("\nSeconds\n")
    print(table(cells, columns, "seconds"))


def rows() -> Iterable[tuple[str, tuple[str | None, dict[str, Any]]]]:
    """Name, preset and changes of each row."""
    for name, changes in ALONE.items():
        yield name, (None, {**PLAIN, **changes})
    together = dict(PLAIN)
    for name, changes in ADDED.items():
        together.update(changes)
        yield name, (None, dict(together))
    yield from PRESETS.items()


def recipe_for(
    recipe: tuple[str | None, dict[str, Any]], target: str, model: LanguageModel | Encoder
) -> SIConfig | None:
    """The recipe of a cell; None where nothing but what a pattern excludes is asked for."""
    preset, changes = recipe
    changes = {**changes, **model.groups}
    if ":" in target:
        free = [name for name in FREE_ONLY if name in changes]
        changes = {name: value for name, value in changes.items() if name not in free}
        if free and preset is None and set(changes) - set(model.groups) == set(PLAIN):
            return None
        goal: dict[str, Any] = {"pattern": target}
    else:
        goal = {"sparsity": float(target.rstrip("%")) / 100}
    return SIConfig(**goal, **changes) if preset is None else SIConfig.preset(preset, **goal, **changes)


def table(cells: dict[str, dict[str, float]], columns: list[tuple[LanguageModel | Encoder, str]], kind: str) -> str:
    """Rows of mechanisms, columns of models and targets."""
    header = ["", *(f"{model.name} {target}" for model, target in columns)]
    dense = ["dense", *(f"{cells[f'{model.name} dense'][kind]:.4g}" for model, _ in columns)]
    lines = [] if kind == "seconds" else [dense]
    for row, _ in rows():
        found = [cells.get(f"{model.name} {target} {row}") for model, target in columns]
        if any(found):
            pairs = zip(found, columns, strict=True)
            lines.append([row, *(_cell(cells, cell, model.name, target, kind) for cell, (model, target) in pairs)])
    return format_table(header, lines)


def _cell(
    cells: dict[str, dict[str, float]], cell: dict[str, float] | None, model: str, target: str, kind: str
) -> str:
    if cell is None:
        return "-"
    if kind == "seconds":
        return f"{cell[kind]:.0f}"
    value, wanda = cell[kind], cells.get(f"{model} {target} Wanda")
    digits = f"{value:.4f}" if value < 1 else f"{value:.2f}"
    if wanda is None:
        return digits
    gap = wanda[kind] - cells[f"{model} dense"][kind]
    return f"{digits} ({(wanda[kind] - value) / gap:.0%})"
