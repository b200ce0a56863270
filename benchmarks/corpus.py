"""Token windows of Python's standard library: text that every machine has, in three disjoint splits; and prose."""

import hashlib
import pydoc_data.topics
import sysconfig
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase


ROOT = Path(sysconfig.get_paths()["stdlib"])
_BUCKETS = {0: "test", 1: "calib"}


def documents(split: str) -> list[str]:
    """Source files of a split ("train", "calib", "test"), by the md5 of their path; or Python's manual ("prose")."""
    if split == "prose":
        return [text for _, text in sorted(pydoc_data.topics.topics.items())]
    texts = []
    for path in sorted(ROOT.rglob("*.py")):
        if {"site-packages", "lib2to3"}.isdisjoint(path.parts):
            bucket = int(hashlib.md5(str(path.relative_to(ROOT)).encode()).hexdigest(), 16) % 20
            if _BUCKETS.get(bucket, "train") == split:
                try:
                    texts.append(path.read_text(encoding="utf-8"))
                except UnicodeDecodeError:
                    continue
    return texts


def windows(
    tokenizer: PreTrainedTokenizerBase, split: str, count: int, length: int, random_starts: bool, seed: int = 0
) -> Tensor:
    """int64 [count, length]: the first full windows of the joined documents, or windows at random places."""
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    joined: list[int] = []
    for text in documents(split):
        joined += [start, *tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], end]
    ids = torch.tensor(joined)
    if not random_starts:
        return ids[: len(ids) // length * length].view(-1, length)[:count]
    places = torch.randint(len(ids) - length, (count,), generator=torch.Generator().manual_seed(seed))
    return torch.stack([ids[place : place + length] for place in places.tolist()])
