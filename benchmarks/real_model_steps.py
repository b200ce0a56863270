"""What ``real_model.py`` needs torch for, each step in a process of its own.

    python benchmarks/real_model_steps.py STEP JSON

``STEP`` is the name of a function below and ``JSON`` its arguments; the last line printed is what it returns, as JSON.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoTokenizer

from optimum_si import perplexity
from optimum_si.calibration import prepare_examples
from optimum_si.checkpoint.load import load_model, maximum_length
from optimum_si.config.groups import CalibrationConfig
from optimum_si.demo.prose import calibration_text, other_text, test_text
from optimum_si.demo.real_model import real_model_directory


#: Windows that pass through the model together while F is taken: what a run computes together by itself.
BATCH = CalibrationConfig().batch_size


def prepare(folder: str, model: str | None, blocks: int | None, windows: int, length: int) -> dict[str, Any]:
    """The texts and the calibration windows as files in a folder, and the model, cut there if it is to be shorter.

    Returns:
        ``model``, the folder of the checkpoint; ``name``; ``blocks``, how many it has.
    """
    texts = {"calibration": calibration_text, "articles": test_text, "news": other_text}
    for name, passages in texts.items():
        lines = [json.dumps({"text": passage}) + "\n" for passage in passages()]
        Path(folder, f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    source = Path(model) if model else real_model_directory()
    directory = source
    count = AutoConfig.from_pretrained(source).num_hidden_layers
    if blocks is not None and blocks != count:
        if not 0 < blocks < count:
            sys.exit(f"{source} has {count} blocks: it can be cut to 1 to {count}, not to {blocks}.")
        directory, count = Path(folder, source.name), blocks
        _cut(source, blocks, directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    data = str(Path(folder, "calibration.jsonl"))
    config = CalibrationConfig(num_samples=windows, sequence_length=length)
    limit = maximum_length(load_model(directory))
    drawn = [example["input_ids"] for example in prepare_examples(data, config, tokenizer, limit)]
    save_file({"windows": torch.cat(drawn).contiguous()}, Path(folder, "windows.safetensors"))
    return {"model": str(directory), "name": source.name, "blocks": count}


def forward(folder: str, model: str) -> dict[str, float]:
    """``seconds`` of one dense forward pass of the blocks, without the head, over the calibration windows."""
    loaded = load_model(model).eval()
    backbone = getattr(loaded, loaded.base_model_prefix)
    windows = load_file(Path(folder, "windows.safetensors"))["windows"]
    with torch.no_grad():
        backbone(windows[:1], use_cache=False)  # allocates, and starts the threads
        begun = time.perf_counter()
        for batch in windows.split(BATCH):
            backbone(batch, use_cache=False)
        return {"seconds": time.perf_counter() - begun}


def perplexities(folder: str, model: str, tokenizer: str, length: int, windows: int) -> dict[str, float]:
    """Perplexity on ``articles``, of the calibration's kind and none of its own, and on ``news``.

    ``tokenizer`` is the dense model's folder: llm-compressor saves none beside the weights.
    """
    loaded, reader = load_model(model), AutoTokenizer.from_pretrained(tokenizer)

    def on(name: str) -> float:
        lines = Path(folder, f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        texts = [json.loads(line)["text"] for line in lines]
        return perplexity(loaded, reader, texts, length, batch_size=2, progress=False, max_windows=windows)

    return {name: on(name) for name in ("articles", "news")}


def _cut(source: Path, blocks: int, directory: Path) -> None:
    config = AutoConfig.from_pretrained(source)
    config.num_hidden_layers = blocks
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:blocks]
    load_model(source, config=config).save_pretrained(directory)
    AutoTokenizer.from_pretrained(source).save_pretrained(directory)


STEPS: dict[str, Callable[..., dict[str, Any]]] = {
    "prepare": prepare,
    "forward": forward,
    "perplexities": perplexities,
}

if __name__ == "__main__":
    print(json.dumps(STEPS[sys.argv[1]](**json.loads(sys.argv[2]))))
