"""Prune with llm-compressor, in its own environment; compare_llm_compressor.py starts this.

python examples/llm_compressor_prune.py MODEL WINDOWS.safetensors METHOD TARGET OUTPUT
"""

import sys

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
    oneshot(
        model=model,
        dataset=data,
        recipe=recipe,
        num_calibration_samples=len(windows),
        max_seq_length=len(windows[0]),
        shuffle_calibration_samples=False,
    )
    model.save_pretrained(output, save_compressed=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
