"""How far a model's final outputs are from those of the dense model."""

import torch
from torch import Tensor


def divergence(outputs: list[Tensor], references: list[Tensor], masks: list[Tensor | None], logits: bool) -> float:
    """Mean over tokens of KL(dense || other) for logits, of the relative squared error for hidden states.

    Args:
        outputs: [batch, tokens, values] (or [batch, values]) for each batch.
        references: the same of the dense model.
        masks: bool [batch, tokens] of real tokens, or None where all are.
        logits: whether values are logits over two or more classes.
    """
    total, count = 0.0, 0
    for output, reference, mask in zip(outputs, references, masks, strict=True):
        if logits:
            kept = reference.log_softmax(dim=-1)
            lost = (kept.exp() * (kept - output.log_softmax(dim=-1))).sum(dim=-1)
        else:
            lost = (output - reference).square().sum(dim=-1) / reference.square().sum(dim=-1).clamp_min(1e-30)
        lost = lost if mask is None or mask.shape != lost.shape else lost[mask]
        total += float(lost.sum(dtype=torch.float64))
        count += lost.numel()
    return total / max(count, 1)
