"""Fine-tune a pruned model on a text file, and keep its zeros.

    python examples/fine_tune.py PRUNED_MODEL TEXT_FILE OUTPUT [--steps 500]

The mask is read from the weights: what is zero when the model is loaded stays zero, so 2:4 stays 2:4. With SI_QUICK=1
a few steps on short windows are taken.
"""

import argparse
import os
from pathlib import Path

import torch
from torch import Tensor
from tqdm import trange
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from optimum_si import perplexity


QUICK = os.environ.get("SI_QUICK") == "1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a pruned causal language model")
    parser.add_argument("text", type=Path, help="the last tenth is held out")
    parser.add_argument("output", help="folder of the result")
    parser.add_argument("--steps", type=int, default=5 if QUICK else 500, help="(default: %(default)s)")
    parser.add_argument("--length", type=int, default=16 if QUICK else 512, help="tokens (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="(default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=1e-4, help="(default: %(default)s)")
    args = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(args.model)
    # In float32: AdamW's small steps are lost in half precision.
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    ids = torch.tensor(tokenizer(args.text.read_text(encoding="utf-8"), verbose=False)["input_ids"])
    windows = ids[: len(ids) // args.length * args.length].view(-1, args.length)
    if len(windows) < 2:
        parser.error(f"{args.text} has {len(ids)} tokens: give text for at least two windows of {args.length}.")
    held_out = max(1, len(windows) // 10)
    masks = masks_of_zeros(model)
    if not masks:
        parser.error(f"{args.model} has no zeros to keep: prune it first.")
    before = sparsity(model, masks), perplexity(model, texts=windows[-held_out:])
    fine_tune(model, masks, windows[:-held_out], args.steps, args.batch_size, args.learning_rate)
    after = sparsity(model, masks), perplexity(model, texts=windows[-held_out:])
    assert all(not model.get_parameter(name)[~mask].any() for name, mask in masks.items()), "a zero was lost"
    print(f"sparsity:   {before[0]:.2%} -> {after[0]:.2%}")
    print(f"perplexity: {before[1]:.4g} -> {after[1]:.4g} on the last {held_out} windows")
    model.save_pretrained(args.output)
    tokenizer.save_pretrained(args.output)


def masks_of_zeros(model: PreTrainedModel) -> dict[str, Tensor]:
    """bool [d_out, d_in] of each matrix that holds zeros, by its name: False where it is zero."""
    # Embeddings are not pruned, but that of a padding token is zero.
    embedding = model.get_input_embeddings().weight
    matrices = {
        name: weight for name, weight in model.named_parameters() if weight.ndim >= 2 and weight is not embedding
    }
    masks = {name: weight != 0 for name, weight in matrices.items()}
    return {name: mask for name, mask in masks.items() if not mask.all()}


def fine_tune(
    model: PreTrainedModel,
    masks: dict[str, Tensor],
    windows: Tensor,
    steps: int,
    batch_size: int,
    learning_rate: float,
) -> None:
    """AdamW on windows int64 [N, T], with the masks applied again after each step.

    With transformers' Trainer the same two lines go into ``TrainerCallback.on_step_end``.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    generator = torch.Generator().manual_seed(0)
    model.train()
    for _ in trange(steps, desc="fine-tuning"):
        batch = windows[torch.randint(len(windows), (batch_size,), generator=generator)].to(model.device)
        model(input_ids=batch, labels=batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for name, mask in masks.items():
                model.get_parameter(name).mul_(mask)
    model.eval()


def sparsity(model: PreTrainedModel, masks: dict[str, Tensor]) -> float:
    """Share of zeros in the matrices that have a mask."""
    weights = [model.get_parameter(name) for name in masks]
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


if __name__ == "__main__":
    main()
