"""``dataset="self"``: text that a model writes itself, in the form in which it is used.

A base model goes on from the start of a text, an instruct model fills in both sides of a conversation in its chat
template (Xu et al. 2024, arXiv 2406.08464; for calibration Williams et al. 2024, arXiv 2410.17170).
"""

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from optimum_si.errors import CalibrationError, NumericalError

from .limits import bounded


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: What asks for it in place of a dataset.
OWN_TEXT = "self"
#: Windows that are written together.
TOGETHER = 32
#: Names of what a model has read: since transformers 5.24, and before.
CACHES = ("cache", "past_key_values")
#: Stand for what is said, to see what a chat template puts around it.
QUESTION, ANSWER, NEXT = "\ue000", "\ue001", "\ue002"
#: Seconds that a chat template may take: it is a program that came with the model.
SECONDS = 10


@dataclass(frozen=True)
class Script:
    """What a model does not write itself.

    Args:
        opening: tokens that every text begins with.
        turns: tokens from the end of one speaker's turn to what the next one says, in turn.
        ends: tokens with which a speaker, or the text, ends.
    """

    opening: tuple[int, ...]
    turns: tuple[tuple[int, ...], ...]
    ends: frozenset[int]

    @classmethod
    def of(cls, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> "Script":
        """Of a model's chat template or, without one, of plain text.

        Raises:
            CalibrationError: where nothing says how a text begins.
        """
        ends = _end_tokens(model, tokenizer)
        if getattr(tokenizer, "chat_template", None):
            conversation = [
                {"role": "user", "content": QUESTION},
                {"role": "assistant", "content": ANSWER},
                {"role": "user", "content": NEXT},
            ]
            with bounded(SECONDS, "the chat template"):
                text = str(tokenizer.apply_chat_template(conversation, tokenize=False))
            before, found, rest = text.partition(QUESTION)
            first, answered, rest = rest.partition(ANSWER)
            second, asked, _ = rest.partition(NEXT)
            if found and answered and asked:
                opening, *turns = (
                    tuple(tokenizer(part, add_special_tokens=False)["input_ids"]) for part in (before, first, second)
                )
                special = set(tokenizer.all_special_ids)
                ends |= {turn[0] for turn in turns if turn and turn[0] in special}
                if opening:
                    return cls(opening, tuple(turns), ends)
        start = tokenizer.bos_token_id
        if start is None:
            start = next(iter(sorted(ends)), None)
        if start is None:
            raise CalibrationError(
                f"dataset={OWN_TEXT!r}: the tokenizer has no chat template, no bos_token and no eos_token, so nothing "
                "says how a text of this model begins: give a dataset."
            )
        return cls((start,), ((start,),), ends)


@dataclass(eq=False)
class _Text:
    """One text under way."""

    script: Script
    forced: deque[int] = field(default_factory=deque)
    turn: int = 0

    def next(self, token: int) -> int:
        """The token that follows where the model wants this one."""
        if self.forced:
            return self.forced.popleft()
        if token in self.script.ends:
            turn = self.script.turns[self.turn % len(self.script.turns)]
            self.turn += 1
            # A turn begins with the very token that the model ended with, or that token is left out.
            self.forced.extend(turn)
            return self.forced.popleft() if self.forced else token
        return token


@torch.no_grad()
def own_windows(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase | None",
    count: int,
    length: int,
    seed: int,
    progress: bool = False,
) -> list[Tensor]:
    """Windows that a model writes, each a text of its own, sampled from its distribution as it is.

    Args:
        model: a causal language model.
        tokenizer: of the model.
        count: windows.
        length: tokens of each.
        seed: of the sampling; the same one gives the same windows.
        progress: whether to show a bar.

    Returns:
        int64 tensors [1, length] on the CPU.

    Raises:
        CalibrationError: for a model that writes no text, or without a tokenizer.
    """
    if tokenizer is None or not model.can_generate() or getattr(model.config, "is_encoder_decoder", False):
        what = "there is no tokenizer" if tokenizer is None else f"{type(model).__name__} writes none"
        raise CalibrationError(
            f"dataset={OWN_TEXT!r} asks the model to write its calibration text, and {what}: give a dataset."
        )
    script, generator = Script.of(model, tokenizer), torch.Generator(model.device).manual_seed(seed)
    windows: list[Tensor] = []
    training = model.training
    model.eval()
    try:
        with tqdm(total=count * length, desc="write", unit="token", disable=not progress) as bar:
            while len(windows) < count:
                size = min(TOGETHER, count - len(windows))
                windows.extend(_written(model, script, size, length, generator, bar).split(1))
    finally:
        model.train(training)
    return windows


def _written(model: Any, script: Script, size: int, length: int, generator: torch.Generator, bar: Any) -> Tensor:
    """Texts of so many tokens, int64 [size, length] on the CPU."""
    texts = [_Text(script) for _ in range(size)]
    written = torch.tensor([script.opening[:length]] * size)
    ids = written.to(model.device)
    cache: dict[str, Any] = {}
    while written.shape[1] < length:
        output = model(input_ids=ids, use_cache=True, **cache)
        probability = output.logits[:, -1].float().softmax(dim=-1)
        if not bool(torch.isfinite(probability).all()):
            raise NumericalError(
                f"the model {type(model).__name__} writes nothing: its logits hold NaN or infinity. Check its weights "
                "and dtype (float16 overflows easily; try dtype='float32')."
            )
        chosen = torch.multinomial(probability, 1, generator=generator)
        following = torch.tensor(
            [[text.next(token)] for text, token in zip(texts, chosen.flatten().tolist(), strict=True)]
        )
        written = torch.cat([written, following], dim=1)
        # Outputs answer to the older name, too.
        cache = {name: output[name] for name in [name for name in CACHES if name in output][:1]}
        # A model without a cache of this kind reads everything again.
        ids = (following if cache else written).to(model.device)
        bar.update(size)
    return written


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens with which texts of a model end."""
    found = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    tokens = found if isinstance(found, (list, tuple)) else [found, tokenizer.eos_token_id]
    return frozenset(int(token) for token in tokens if token is not None)
