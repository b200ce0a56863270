"""The examples run as written."""

import subprocess
import sys
from pathlib import Path

from helpers import tiny
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast


EXAMPLES = Path(__file__).parents[2] / "examples"


def test_prune_runs_as_written(tmp_path):
    text = Path(__file__).read_text()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.train_from_iterator([text], trainers.BpeTrainer(vocab_size=48, special_tokens=["<pad>"]))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>").save_pretrained(tmp_path / "model")
    model = tiny("opt")
    model.resize_token_embeddings(tokenizer.get_vocab_size())
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "notes.txt").write_text(text * 3)
    command = [
        sys.executable,
        str(EXAMPLES / "prune.py"),
        *(str(tmp_path / name) for name in ("model", "notes.txt", "out")),
    ]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert "sparsity: 50.00%" in finished.stdout and "'pattern': '2:4'" in finished.stdout
