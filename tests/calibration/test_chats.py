"""Conversations are what the tokenizer's chat template makes of them, with no special token twice."""

import datasets
import pytest
import torch
from support.models import save_with_tokenizer, tiny
from transformers import AutoTokenizer

from optimum_si import CalibrationConfig, CalibrationError
from optimum_si.calibration import chats, fresh_examples, load_texts, prepare_examples


TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}{{ eos_token }}{% endfor %}"
CONFIG = CalibrationConfig(num_samples=4, sequence_length=32)


@pytest.fixture
def chatty(lm_tokenizer):
    lm_tokenizer.chat_template = TEMPLATE
    yield lm_tokenizer
    lm_tokenizer.chat_template = None


@pytest.fixture
def conversations(texts):
    return [[{"role": "user", "content": text[:60]}, {"role": "assistant", "content": text[60:150]}] for text in texts]


def same(first, second):
    return all(torch.equal(a["input_ids"], b["input_ids"]) for a, b in zip(first, second, strict=True))


def test_every_way_to_hold_the_same_conversations_gives_the_same_windows(tmp_path, chatty, conversations):
    names = {"user": "human", "assistant": "gpt"}
    share = [[{"from": names[t["role"]], "value": t["content"]} for t in chat] for chat in conversations]
    named = [{"messages": chat} for chat in conversations]
    dataset = datasets.Dataset.from_list([{**row, "prompt": "p", "prompt_id": "x"} for row in named])
    dataset.to_parquet(tmp_path / "rows.parquet")
    dataset.to_json(tmp_path / "rows.jsonl")
    expected = prepare_examples(conversations, CONFIG, chatty)
    for given in (
        named,
        [{"conversations": chat} for chat in share],
        [{"dialogue": chat} for chat in conversations],
        dataset,
        f"{tmp_path}/rows.parquet",
        f"{tmp_path}/rows.jsonl",
    ):
        assert same(prepare_examples(given, CONFIG, chatty), expected)
    assert len(prepare_examples(dataset.to_iterable_dataset(), CONFIG, chatty)) == 4
    asked = CalibrationConfig(num_samples=4, sequence_length=32, column="messages")
    assert same(prepare_examples(dataset, asked, chatty), expected)


def test_windows_hold_what_the_template_says_and_no_special_token_twice(chatty, conversations):
    rendered = [chatty.apply_chat_template(chat, tokenize=False) for chat in conversations]
    whole = [chatty(text, add_special_tokens=False)["input_ids"] for text in rendered]
    config = CalibrationConfig(num_samples=1, sequence_length=len(whole[0]))
    (window,) = prepare_examples(conversations[:1], config, chatty)
    assert window["input_ids"][0].tolist() == whole[0]
    assert (window["input_ids"] == chatty.bos_token_id).sum() == 1


def test_further_conversations_are_drawn_for_a_recovery(chatty, conversations):
    seen = prepare_examples(conversations, CONFIG, chatty)
    fresh = fresh_examples(seen, 3, conversations, CONFIG, chatty)
    assert len(fresh) == 3 and not any(torch.equal(a["input_ids"], b["input_ids"]) for a in seen for b in fresh)


def test_a_usual_column_of_text_goes_before_a_conversation(chatty, texts, conversations):
    rows = [{"text": text, "messages": chat} for text, chat in zip(texts, conversations, strict=True)]
    assert same(prepare_examples(rows, CONFIG, chatty), prepare_examples(texts, CONFIG, chatty))


def test_without_a_template_the_error_says_what_to_give(lm_tokenizer, conversations):
    for column in (None, "messages"):
        config = CalibrationConfig(num_samples=4, sequence_length=32, column=column)
        with pytest.raises(CalibrationError, match="holds conversations and the tokenizer has no chat template"):
            prepare_examples([{"messages": chat} for chat in conversations], config, lm_tokenizer)
    with pytest.raises(CalibrationError, match="no tokenizer"):
        prepare_examples(conversations, CONFIG)
    with pytest.raises(CalibrationError, match="is conversations: give texts"):
        load_texts(conversations, CONFIG)


def test_a_conversation_that_the_template_refuses_is_an_error_with_its_words(chatty, conversations):
    chatty.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(CalibrationError, match="roles must alternate"):
        prepare_examples(conversations, CONFIG, chatty)


def test_a_template_that_never_ends_is_ended(tmp_path, monkeypatch, conversations):
    monkeypatch.setattr(chats, "SECONDS", 0.5)
    save_with_tokenizer(tiny("llama"), tmp_path, "some text")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.chat_template = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(CalibrationError, match="chat template does not come to an end within 0.5 s"):
        prepare_examples(conversations, CONFIG, tokenizer)


@pytest.mark.parametrize("template", ["{{ 'x' * 10**10 }}", "{{ '{:>9999999999}'.format(1) }}"], ids=str)
def test_a_template_that_takes_all_memory_is_ended(chatty, conversations, template):
    chatty.chat_template = template
    with pytest.raises(CalibrationError, match="takes more than 512 MiB of memory: mend it"):
        prepare_examples(conversations, CONFIG, chatty)
