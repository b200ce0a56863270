"""A multiple-choice task of lm-eval on local files, a tokenizer of words, and a tiny model that they fit."""

import json
from pathlib import Path
from typing import Any

from support.models import VOCABULARY
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast


QUESTIONS: list[dict[str, Any]] = [
    {
        "question": f"w{number} w{(number * 3) % 40 + 1}",
        "choices": [f"w{(number * 5 + 7 * choice) % 40 + 1}" + " w4" * choice for choice in range(3)],
        "label": number % 3,
    }
    for number in range(1, 25)
]
_TASK = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {file}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: label
"""


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Words w1 ... w47, in the vocabulary of the tiny models; w1 also ends a text."""
    vocabulary = {"<pad>": 0, **{f"w{number}": number for number in range(1, VOCABULARY)}}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="w1")


def write_task(folder: Path, name: str = "guess", more: str = "metric_list:\n  - metric: acc\n") -> Path:
    """A YAML task on :data:`QUESTIONS`; its folder."""
    folder.mkdir(exist_ok=True)
    file = folder / "questions.jsonl"
    file.write_text("\n".join(map(json.dumps, QUESTIONS)))
    (folder / f"{name}.yaml").write_text(_TASK.format(name=name, file=file) + more)
    return folder


def only_own_tasks(monkeypatch, folder: Path) -> None:
    """Without the thousands of tasks that lm-eval brings, which take seconds to list; and with a cache of its own."""
    from lm_eval.tasks import TaskManager

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "cache")
    original = TaskManager.__init__
    monkeypatch.setattr(
        TaskManager, "__init__", lambda self, **options: original(self, include_defaults=False, **options)
    )
