"""The text of a model card, section by section, in the order in which a reader asks."""

import json
import shlex
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from optimum_si.config import recipe_flags
from optimum_si.config.groups import InductionConfig
from optimum_si.config.presets import PRESETS
from optimum_si.config.si_config import SIConfig


if TYPE_CHECKING:
    from .card import Facts

#: Auto classes of transformers by the Hub's name of a task.
AUTO_CLASSES = {
    "text-generation": "AutoModelForCausalLM",
    "text2text-generation": "AutoModelForSeq2SeqLM",
    "fill-mask": "AutoModelForMaskedLM",
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "image-classification": "AutoModelForImageClassification",
}
_CAPTIONS = {
    "importance": "Histograms of the scores of all weights, before and after induction",
    "layers": "Relative output error and share of zeros of each layer",
    "blocks": "Held-out loss of each block with the plain method and as chosen",
    "singular-values": "Singular values of one layer, dense and pruned",
    "scales": "Range and median of the learned scales of each layer",
}


def body(facts: "Facts", task: str | None) -> str:
    """Everything below the metadata, Markdown."""
    sections = [
        _title(facts),
        _figures(facts),
        _results(facts),
        _pictures(facts),
        _loading(facts, task),
        _fine_tuning(facts, task),
        _onnx(facts, task),
        _layers(facts),
        _reproducing(facts),
        _limits(facts),
    ]
    return "\n\n".join(section for section in sections if section)


def _title(facts: "Facts") -> str:
    base, report = facts.report.base, facts.report
    origin = f"[{base['name']}](https://huggingface.co/{base['name']})" if base.get("on_hub") else f"`{_base(facts)}`"
    if report.task == "induce":
        did = f"prepared for {report.method} at {report.target}, still dense: it computes the same function"
    else:
        how = "after Sparsity Induction" if report.induction else "without induction"
        did = f"pruned to {report.target} with {_method(report.method)}, {how}"
    zeros = ", more zeros" if report.task == "prune" else ""
    return (
        f"# {facts.name.rsplit('/', 1)[-1]}\n\n{origin}, {did}. An ordinary `transformers` checkpoint: same names, "
        f"same shapes{zeros}. Made with optimum-si {report.version} ([arXiv 2602.21652](https://arxiv.org/abs/2602.21652))."
    )


def _figures(facts: "Facts") -> str:
    report = facts.report
    rows = [("method", _method(report.method)), ("target", report.target)]
    if report.steps:
        rows.append(("steps", ", ".join(report.steps)))
    if report.task == "prune":
        rows.append(("zeros in the pruned layers", f"{report.sparsity:.2%}"))
    data = f" of `{facts.dataset}`" if facts.dataset else ""
    rows += [
        ("layers", f"{len(report.layers)} in {len(report.blocks)} blocks, of {report.parameters:,} parameters"),
        ("calibration", f"{report.calibration_windows} windows, {report.calibration_tokens:,} tokens{data}"),
        ("time", f"{report.seconds:.0f} s"),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _results(facts: "Facts") -> str:
    if not facts.results:
        return ""
    lines = ["## What it cost", "", "| data | measure | dense | this model |", "|---|---|---|---|"]
    for result in facts.results:
        dense = "not measured" if result.dense is None else f"{result.dense:.4g}"
        details = f" ({result.details})" if result.details else ""
        lines.append(f"| {result.dataset}{details} | {result.metric} | {dense} | {result.value:.4g} |")
    return "\n".join(lines)


def _pictures(facts: "Facts") -> str:
    def caption(path: str) -> str:
        stem = PurePosixPath(path).stem
        return _CAPTIONS.get(stem, stem.replace("-", " ").replace("_", " "))

    return "\n\n".join(f"![{caption(path)}]({path})" for path in facts.pictures)


def _loading(facts: "Facts", task: str | None) -> str:
    auto = AUTO_CLASSES.get(task or "", "AutoModel")
    name = json.dumps(facts.name)
    names = f"{auto}, AutoTokenizer" if facts.has_tokenizer else auto
    lines = [f"from transformers import {names}", "", f"model = {auto}.from_pretrained({name})"]
    if facts.has_tokenizer:
        lines.append(f"tokenizer = AutoTokenizer.from_pretrained({name})")
        if task == "text-generation":
            lines += [
                'ids = tokenizer("The first thing to know", return_tensors="pt").input_ids',
                "print(tokenizer.decode(model.generate(ids, max_new_tokens=20)[0]))",
            ]
        elif task != "text2text-generation":
            lines += ['inputs = tokenizer("A sentence.", return_tensors="pt")', "print(model(**inputs)[0].shape)"]
    return "## Use it\n\n" + _code("python", lines)


def _fine_tuning(facts: "Facts", task: str | None) -> str:
    if facts.report.task == "induce":
        return ""
    auto = AUTO_CLASSES.get(task or "", "AutoModel")
    least = max(min(facts.report.sparsity / 2, 0.2), 0.001)
    lines = [
        "import torch",
        f"from transformers import {auto}",
        "",
        f"model = {auto}.from_pretrained({json.dumps(facts.name)})",
        "optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)",
        "matrices = [weight for weight in model.parameters() if weight.ndim > 1]",
        f"sparse = [weight for weight in matrices if (weight == 0).float().mean() > {least:.3g}]",
        "masks = [weight.detach() != 0 for weight in sparse]",
        "",
        "",
        "def keep_zeros(*_):",
        "    for weight, mask in zip(sparse, masks):",
        "        weight.data.mul_(mask.to(weight.device))",
        "",
        "",
        "optimizer.register_step_post_hook(keep_zeros)",
        "# now train with this optimizer, in a loop of your own or as Trainer(optimizers=(optimizer, None))",
    ]
    return "## Fine-tune it and keep the zeros\n\n" + _code("python", lines)


def _onnx(facts: "Facts", task: str | None) -> str:
    if facts.onnx:
        kind = "ORTSIModelForCausalLM" if task == "text-generation" else "ORTSIModel"
        where = f'{json.dumps(facts.name)}, subfolder="{facts.onnx}"'
        lines = [f"from optimum_si import {kind}", ""]
        if task == "text2text-generation":
            lines += [
                f'{part} = {kind}.from_pretrained({where}, file="{part}.onnx")' for part in ("encoder", "decoder")
            ]
        else:
            lines.append(f"model = {kind}.from_pretrained({where})")
        return f"## On ONNX Runtime\n\nThe folder `{facts.onnx}` holds an export.\n\n" + _code("python", lines)
    return "## On ONNX Runtime\n\n" + _code("bash", [f"optimum-cli si export {shlex.quote(facts.name)} model-onnx"])


def _layers(facts: "Facts") -> str:
    lines = [
        "<details><summary>Layer by layer</summary>",
        "",
        "Error: relative squared error of the layer's output on calibration tokens.",
        "",
        "| layer | shape | zeros | error, plain method | error |",
        "|---|---|---|---|---|",
    ]
    for layer in facts.report.layers:
        zeros = "-" if layer.sparsity is None else f"{layer.sparsity:.2%}"
        before = "-" if layer.error_before is None else f"{layer.error_before:.4f}"
        shape = "x".join(map(str, layer.shape))
        lines.append(f"| `{layer.name}` | {shape} | {zeros} | {before} | {layer.error_after:.4f} |")
    return "\n".join([*lines, "", "</details>"])


def _reproducing(facts: "Facts") -> str:
    config, report = facts.config, facts.report
    dataset = facts.dataset
    words = ["optimum-cli", "si", report.task, "-m", _base(facts)]
    words += ["--dataset", dataset or "calibration.txt"]
    flags = _flags(config)
    lines = []
    if flags is None:
        # Some options have no flag: the saved recipe repeats all of them.
        lines.append(shlex.join(["hf", "download", facts.name, SIConfig.CONFIG_NAME, "--local-dir", "."]))
        flags = ["--config", SIConfig.CONFIG_NAME]
    lines.append(shlex.join([*words, *flags, "-o", facts.name.rsplit("/", 1)[-1]]))
    note = "" if dataset else "\n\nCalibration data was given in Python: `calibration.txt` stands for it."
    return f"## Make it again\n\n{_code('bash', lines)}{note}"


def _flags(config: SIConfig) -> list[str] | None:
    """The fewest command-line flags that give this recipe; None where some option has no flag."""
    target = {"pattern": config.pattern} if config.pattern else {"sparsity": config.sparsity}
    starts: list[tuple[list[str], SIConfig]] = [(["--method", config.method], SIConfig(config.method))]
    for name, values in PRESETS.items():
        words = [] if values["method"] == config.method else ["--method", config.method]
        starts.append((["--preset", name, *words], SIConfig.preset(name, method=config.method, **target)))
    found = (_flags_from(words, start, config) for words, start in starts)
    return min((flags for flags in found if flags is not None), key=len, default=None)


def _flags_from(words: list[str], start: SIConfig, config: SIConfig) -> list[str] | None:
    """The flags that turn one recipe into another, after ``words``."""
    again = start.to_dict()
    target: dict[str, Any] = {"pattern": config.pattern} if config.pattern else {"sparsity": config.sparsity}
    plain = _changed(config, start, recipe_flags.PLAIN)
    # One flag seeds both.
    calibration = _changed(config.calibration, start.calibration, recipe_flags.CALIBRATION[:3])
    calibration |= _changed(config.calibration, start.calibration, recipe_flags.CALIBRATION[4:])
    learning = {}
    if config.induction is not None:
        learning = _changed(config.induction, start.induction or InductionConfig(), recipe_flags.INDUCTION)
    again |= {"pattern": None, "sparsity": None, **target, **plain}
    again["calibration"] = {**again["calibration"], **calibration, "seed": config.seed}
    if config.induction is None:
        again["induction"] = None
    elif learning:
        again["induction"] = {**(again["induction"] or {}), **learning}
    if SIConfig(**again).to_dict() != config.to_dict():
        return None
    calibration.pop("dataset", None)  # stands in the command already
    flags = [*words]
    for name, value in {**target, **plain, **calibration, **learning}.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            flags.append(flag if value else flag.replace("--", "--no-"))
        else:
            flags += [flag, *map(str, value if isinstance(value, list) else ["none" if value is None else value])]
    return flags if config.induction is not None or start.induction is None else [*flags, "--no-induction"]


def _changed(options: Any, start: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Options by name where they are not those of ``start``."""
    pairs = {name: (getattr(options, name), getattr(start, name)) for name in names}
    return {name: value for name, (value, other) in pairs.items() if value != other}


def _limits(facts: "Facts") -> str:
    lines = ["## What to know", ""]
    if facts.report.task == "prune":
        lines.append(
            "- Zeros make nothing faster by themselves: PyTorch and ONNX Runtime's CPU and CUDA providers compute "
            "them like other numbers. 2:4 matrices are faster on NVIDIA GPUs with TensorRT."
        )
    if not facts.results and facts.kind == "text-generation":
        lines.append(
            f"- Quality was not measured: `optimum-cli si evaluate -m {shlex.quote(facts.name)} --dataset wikitext2`."
        )
    licence = facts.report.base.get("license")
    if licence is None:
        lines.append(f"- The licence and the limits of {_base(facts)} apply to this model too.")
    else:
        licence = ", ".join(licence) if isinstance(licence, list) else licence
        lines.append(f"- Licence ({licence}) and limits are those of {_base(facts)}.")
    return "\n".join(lines)


def _base(facts: "Facts") -> str:
    return str(facts.report.base.get("name") or "model")


def _method(name: str) -> str:
    return {"sparsegpt": "SparseGPT"}.get(name, name.capitalize())


def _code(language: str, lines: list[str]) -> str:
    return "\n".join([f"```{language}", *lines, "```"])
