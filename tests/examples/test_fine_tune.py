"""``examples/fine_tune.py`` runs as written, and every zero is kept."""

import pytest
import torch
from support.models import block_weights
from transformers import AutoModelForCausalLM

from optimum_si import SIConfig, SIPruner


@pytest.fixture(scope="module")
def pruned(checkpoint, tmp_path_factory):
    directory = tmp_path_factory.mktemp("pruned") / "opt"
    pruner = SIPruner.from_pretrained(checkpoint)
    pruner.prune(SIConfig("magnitude", pattern="2:4", induction=None), torch.ones(1, 8, dtype=torch.long))
    pruner.save_pretrained(directory)
    return directory


def test_weights_change_and_zeros_do_not(run, pruned, text_file, tmp_path):
    finished = run("fine_tune.py", pruned, text_file, tmp_path / "out", "--learning-rate", 0.01)
    assert "sparsity:   50." in finished.stdout and "perplexity:" in finished.stdout
    before, after = (block_weights(AutoModelForCausalLM.from_pretrained(path)) for path in (pruned, tmp_path / "out"))
    for name, weight in before.items():
        assert torch.equal(after[name] == 0, weight == 0) and not torch.equal(after[name], weight)


def test_a_dense_model_has_nothing_to_keep(run, checkpoint, text_file, tmp_path):
    finished = run("fine_tune.py", checkpoint, text_file, tmp_path / "out", code=2)
    assert "prune it first" in finished.stderr
