"""Prune with llm-compressor, in its own environment; compare_llm_compressor.py starts this.

python examples/llm_compressor_prune.py MODEL WINDOWS.safetensors METHOD TARGET OUTPUT

The last line printed is {"seconds": of llm-compressor's call, loading and saving aside}.
"""

import json
import sys
import time

import torch
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM


MODIFIERS = {"wanda": WandaPruningModifier, "sparsegpt": SparseGPTModifier}


def main(path: str, file: str, method: str, target: str, output: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    windows = load_file(file)["windows"].tolist()
    data = Dataset.from_dict({"input_ids": windows, "attention_mask": [[1] * len(window) for window in windows]})
    if ":" in target:
        kept, size = map(int, target.split(":"))
        goal = {"sparsity": 1 - kept / size, "mask_structure": target}
    else:
        goal = {"sparsity": float(target.rstrip("%")) / 100}
    # The pattern also ends in front of the dot that names inside a matched Linear begin with.
    recipe = MODIFIERS[method](**goal, targets=["Linear"], ignore=["re:.*lm_head.*"])
    begun = time.perf_counter()
    oneshot(
        model=model,
        dataset=data,
        recipe=recipe,
        num_calibration_samples=len(windows),
        max_seq_length=len(windows[0]),
        shuffle_calibration_samples=False,
    )
    seconds = time.perf_counter() - begun
    model.save_pretrained(output, save_compressed=False)
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
