"""Export a pruned model to ONNX, and generate with it: in Python as with PyTorch, and with nothing but onnxruntime.

    python examples/deploy_onnx.py PRUNED_MODEL ONNX_DIR ["a prompt"]

The second loop is what a program in C++, C# or JavaScript would do: it needs neither torch nor transformers, but for
the tokenizer. With SI_QUICK=1 a few tokens are generated.
"""

import os
import sys

import numpy as np
import onnxruntime
from transformers import AutoModelForCausalLM, AutoTokenizer

from optimum_si import ORTSIModelForCausalLM
from optimum_si.onnx import export


NEW_TOKENS = 4 if os.environ.get("SI_QUICK") == "1" else 32


def main(model_id: str, directory: str, prompt: str = "The quick brown fox") -> None:
    export(model_id, directory, overwrite=True)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    inputs = {**tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)}
    # Without an end, so that all three loops take the same number of steps.
    options = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False, "eos_token_id": None}

    original = AutoModelForCausalLM.from_pretrained(model_id)
    exported = ORTSIModelForCausalLM.from_pretrained(directory)
    tokens = {
        "PyTorch": original.generate(**inputs, **options)[0].tolist(),
        "ORTSIModelForCausalLM": exported.generate(**inputs, **options)[0].tolist(),
        "bare onnxruntime": generate(f"{directory}/model.onnx", inputs["input_ids"].numpy(), NEW_TOKENS),
    }
    for name, found in tokens.items():
        print(f"{name}: {tokenizer.decode(found)!r}")
    same = len(set(map(tuple, tokens.values()))) == 1
    print(f"all three give the same tokens: {same}")


def generate(path: str, ids: np.ndarray, new_tokens: int) -> list[int]:
    """Greedy tokens after a prompt int64 [1, tokens]; the graph takes the cache of keys and values, and gives it."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    places = {value.name: value for value in session.get_inputs()}
    names = [value.name for value in session.get_outputs()]
    # Keys and values [batch, heads, cached tokens, head size], none so far.
    cache = {
        name: np.zeros((1, value.shape[1], 0, value.shape[3]), np.float32)
        for name, value in places.items()
        if name.startswith("past_key_values")
    }
    tokens, new = ids[0].tolist(), ids
    for _ in range(new_tokens):
        positions = np.arange(len(tokens) - new.shape[1], len(tokens))[None]
        feeds = {"input_ids": new, "attention_mask": np.ones((1, len(tokens)), np.int64), "position_ids": positions}
        feeds = {name: value for name, value in feeds.items() if name in places}
        outputs = dict(zip(names, session.run(None, {**feeds, **cache}), strict=True))
        cache = {name: outputs[name.replace("past_key_values", "present")] for name in cache}
        tokens.append(int(outputs["logits"][0, -1].argmax()))
        new = np.array([tokens[-1:]])
    return tokens


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(f"usage: {__doc__.splitlines()[2].strip()}")
    main(*sys.argv[1:])
