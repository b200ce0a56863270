"""Text that a model writes: the same for a seed, turn by turn in a chat template, and fresh for a recovery."""

import pytest
import torch
from support.models import prune, same_bytes, save_with_tokenizer, tiny
from transformers import AutoModelForCausalLM, AutoTokenizer

from optimum_si.calibration import load_texts
from optimum_si.calibration.data import run_data, written_examples
from optimum_si.calibration.own_text import Script, own_windows
from optimum_si.config.groups import CalibrationConfig
from optimum_si.errors import CalibrationError


TEMPLATE = "{% for m in messages %}<pad>{{ m['role'] }}:{{ m['content'] }}</s>{% endfor %}"


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    """A model with a tokenizer that has neither a chat template nor a bos token."""
    directory = tmp_path_factory.mktemp("subject")
    save_with_tokenizer(tiny("llama"), directory, "user: what is it? assistant: it is what it is.")
    return AutoModelForCausalLM.from_pretrained(directory).eval(), AutoTokenizer.from_pretrained(directory)


@pytest.fixture
def chatty(subject):
    model, tokenizer = subject
    tokenizer.chat_template = TEMPLATE
    yield model, tokenizer
    tokenizer.chat_template = None


def test_a_seed_gives_the_same_windows_and_another_one_others(subject):
    first, again, other = (own_windows(*subject, 3, 20, seed) for seed in (0, 0, 1))
    assert [window.shape for window in first] == [(1, 20)] * 3
    assert torch.equal(torch.cat(first), torch.cat(again)) and not torch.equal(torch.cat(first), torch.cat(other))


def test_windows_follow_the_distribution_of_the_model(subject):
    model, tokenizer = subject
    start = torch.tensor([[tokenizer.eos_token_id]])
    with torch.no_grad():
        expected = model(start).logits[0, -1].softmax(dim=-1)
    drawn = torch.cat(own_windows(model, tokenizer, 2000, 2, 0))[:, 1]
    found = torch.bincount(drawn, minlength=len(expected)) / len(drawn)
    # As far apart as samples of this size are: 1.6 with a uniform distribution instead.
    assert float((found - expected).abs().sum()) < 0.4
    likely = int(expected.argmax())
    assert float(expected[likely]) == pytest.approx(float(found[likely]), abs=0.05)


def test_a_cache_changes_nothing(subject, monkeypatch):
    model, tokenizer = subject
    cached = torch.cat(own_windows(model, tokenizer, 4, 12, 0))
    forward = type(model).forward
    monkeypatch.setattr(type(model), "forward", lambda self, **inputs: forward(self, **{**inputs, "use_cache": False}))
    assert torch.equal(torch.cat(own_windows(model, tokenizer, 4, 12, 0)), cached)


def test_turns_of_a_chat_template_alternate(chatty):
    model, tokenizer = chatty
    script = Script.of(model, tokenizer)
    assert tokenizer.decode(script.opening) == "<pad>user:"
    assert [tokenizer.decode(turn) for turn in script.turns] == ["</s><pad>assistant:", "</s><pad>user:"]
    texts = [tokenizer.decode(window[0]) for window in own_windows(model, tokenizer, 40, 60, 0)]
    assert all(text.startswith("<pad>user:") for text in texts)
    turns = [part.split(":")[0] for text in texts for part in text.split("</s><pad>")[1:] if ":" in part]
    assert {"assistant", "user"} <= set(turns)
    # Whoever speaks first after the user is the assistant, and the user again after that.
    for text in texts:
        spoken = text.split("</s><pad>")[1:-1]
        assert all(part.startswith(("assistant:", "user:")[number % 2]) for number, part in enumerate(spoken))


def test_fits_and_recovery_see_different_windows_of_one_length(subject):
    config = CalibrationConfig(num_samples=4, sequence_length=10)
    examples, fresh = run_data("self", config, 3, *subject, 64)
    assert len(examples) == 4 and len(fresh) == 3
    assert not {tuple(one["input_ids"][0].tolist()) for one in examples} & {
        tuple(one["input_ids"][0].tolist()) for one in fresh
    }
    both = run_data("self", config, 0, *subject, 64)
    assert both[0] is both[1]
    assert run_data("self", config, None, *subject, 8)[0][0]["input_ids"].shape == (1, 8)


def test_a_model_is_pruned_on_what_it_writes_in_the_same_way_each_time(subject, tmp_path):
    model, tokenizer = subject
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    calibration = {"num_samples": 8, "sequence_length": 16}
    runs = [
        prune(str(tmp_path), "wanda", "self", pattern="2:4", calibration=calibration, recovery={"num_samples": 4})
        for _ in range(2)
    ]
    assert same_bytes(*(run.model for run in runs))
    assert runs[0].report.dataset == "self" and runs[0].report.recovery.windows == 4


@pytest.mark.parametrize(
    ("name", "tokenizer", "reason"),
    [("bert", True, "writes none"), ("t5", True, "writes none"), ("llama", None, "no tokenizer")],
)
def test_who_cannot_write_is_told_to_give_a_dataset(subject, name, tokenizer, reason):
    with pytest.raises(CalibrationError, match=f"{reason}.*give a dataset"):
        written_examples(CalibrationConfig(num_samples=1), tiny(name), tokenizer and subject[1], 16)


def test_evaluation_needs_the_text_of_others():
    with pytest.raises(CalibrationError, match="texts of others"):
        load_texts("self", CalibrationConfig(), evaluation=True)
