"""Text -> full windows of tokens, the same for the same seed."""

import random
import warnings
from dataclasses import replace

import pytest
import torch

from optimum_si import CalibrationConfig, CalibrationError
from optimum_si.calibration import prepare_examples
from optimum_si.calibration.windows import Windower, one_window_per_document, windows_at_random_starts


CONFIG = CalibrationConfig(num_samples=4, sequence_length=32)


def ids_of(examples):
    return [example["input_ids"] for example in examples]


def same(left, right):
    return len(left) == len(right) and all(map(torch.equal, ids_of(left), ids_of(right)))


@pytest.fixture
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.usefixtures("no_warnings")
def test_text_becomes_num_samples_full_windows_with_a_mask_of_ones(texts, lm_tokenizer):
    examples = prepare_examples(texts, CONFIG, lm_tokenizer)
    assert len(examples) == 4
    for example in examples:
        assert set(example) == {"input_ids", "attention_mask"}
        assert example["input_ids"].shape == (1, 32) and example["input_ids"].dtype == torch.int64
        assert torch.equal(example["attention_mask"], torch.ones(1, 32, dtype=torch.int64))


def test_same_seed_gives_the_same_windows_and_another_seed_others(texts, lm_tokenizer):
    first = prepare_examples(texts, CONFIG, lm_tokenizer)
    torch.manual_seed(1)
    random.seed(1)
    assert same(first, prepare_examples(texts, CONFIG, lm_tokenizer))
    assert not same(first, prepare_examples(texts, replace(CONFIG, seed=1), lm_tokenizer))


def test_global_random_state_is_left_alone(texts, lm_tokenizer):
    random.seed(0)
    before = random.getstate(), torch.get_rng_state()
    prepare_examples(texts, CONFIG, lm_tokenizer)
    assert random.getstate() == before[0] and torch.equal(torch.get_rng_state(), before[1])


def test_packed_windows_are_the_shuffled_documents_in_one_stream(texts, lm_tokenizer):
    with pytest.warns(UserWarning, match="fewer than num_samples"):
        windows = ids_of(prepare_examples(texts[:3], replace(CONFIG, num_samples=1000), lm_tokenizer))
    stream = torch.cat(windows, dim=1)[0].tolist()
    documents = [lm_tokenizer(text)["input_ids"] for text in texts[:3]]
    orders = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
    streams = [[token for index in order for token in documents[index]] for order in orders]
    assert any(stream == candidate[: len(stream)] for candidate in streams)
    assert sum(map(len, documents)) - len(stream) < 32


def test_only_as_many_documents_are_tokenized_as_the_windows_need(texts, lm_tokenizer):
    seen = []

    class Counting:
        model_max_length = 10**30
        cls_token_id = sep_token_id = None

        def __call__(self, text, **options):
            seen.append(text)
            return lm_tokenizer(text, **options)

    prepare_examples(texts, replace(CONFIG, num_samples=1), Counting())
    assert len(seen) == 1


def test_one_long_document_gives_windows_from_all_over_it(texts, lm_tokenizer):
    ids = lm_tokenizer(" ".join(texts), verbose=False)["input_ids"]
    windows = {
        tuple(window[0].tolist()) for window in ids_of(prepare_examples([" ".join(texts)], CONFIG, lm_tokenizer))
    }
    starts = [start for start in range(0, len(ids), 32) if tuple(ids[start : start + 32]) in windows]
    assert len(windows) == len(starts) == 4
    assert max(starts) > len(ids) // 4


def test_fewer_windows_than_asked_are_all_used_with_one_warning(texts, lm_tokenizer):
    total = len(lm_tokenizer(texts[0])["input_ids"])
    with pytest.warns(UserWarning, match=f"fills {total // 32} windows of 32 tokens.*num_samples=128") as caught:
        examples = prepare_examples(texts[:1], replace(CONFIG, num_samples=128), lm_tokenizer)
    assert len(examples) == total // 32
    assert len(caught) == 1 and caught[0].filename == __file__


def test_less_than_one_window_is_an_error_with_both_token_counts(lm_tokenizer):
    count = len(lm_tokenizer("d1w1")["input_ids"])
    with pytest.raises(CalibrationError, match=f"{count} tokens and one window needs 32"):
        prepare_examples(["d1w1"], CONFIG, lm_tokenizer)


def test_exactly_one_window_is_enough(texts, lm_tokenizer):
    count = len(lm_tokenizer(texts[0])["input_ids"])
    examples = prepare_examples(texts[:1], replace(CONFIG, sequence_length=count, num_samples=1), lm_tokenizer)
    assert ids_of(examples)[0].shape == (1, count)


@pytest.mark.parametrize("dataset", [[""], ["", " \n"]])
def test_nothing_but_empty_texts_is_an_error(dataset, lm_tokenizer):
    with pytest.raises(CalibrationError, match="0 tokens"):
        prepare_examples(dataset, CONFIG, lm_tokenizer)


def test_empty_texts_among_others_add_nothing(texts, lm_tokenizer):
    padded = [text for pair in zip(texts[:2], ["", "\n"], strict=True) for text in pair]
    stream = torch.cat(ids_of(prepare_examples(padded, replace(CONFIG, num_samples=1), lm_tokenizer)), dim=1)
    assert (stream == lm_tokenizer.bos_token_id).sum() <= 1


def test_windows_are_as_long_as_model_and_tokenizer_allow(texts, lm_tokenizer, bert_tokenizer):
    long = CalibrationConfig(num_samples=1, sequence_length=100)
    assert ids_of(prepare_examples(texts, long, lm_tokenizer))[0].shape == (1, 100)
    assert ids_of(prepare_examples(texts, long, lm_tokenizer, max_length=24))[0].shape == (1, 24)
    assert ids_of(prepare_examples([" ".join(texts)], long, bert_tokenizer))[0].shape == (1, 64)


def test_encoders_get_one_document_at_a_time_framed(texts, bert_tokenizer):
    documents = [text[:60] for text in texts] + [" ".join(texts[:2])]
    whole = [bert_tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] for text in documents]
    pieces = {tuple(ids[start : start + 30]) for ids in whole for start in range(0, len(ids), 30)}
    windows = ids_of(prepare_examples(documents, replace(CONFIG, num_samples=6), bert_tokenizer))
    for window in windows:
        assert window[0, 0] == bert_tokenizer.cls_token_id and window[0, -1] == bert_tokenizer.sep_token_id
        assert tuple(window[0, 1:-1].tolist()) in pieces
    assert len({window.numel() for window in windows}) > 1
    assert 6 * 32 <= sum(window.numel() for window in windows) < 7 * 32


def test_encoders_get_all_of_a_text_that_is_too_short_with_a_warning(texts, bert_tokenizer):
    ids = bert_tokenizer(texts[0], add_special_tokens=False)["input_ids"]
    with pytest.warns(UserWarning, match=r"fills \d+ windows of 32 tokens, fewer than num_samples=128"):
        windows = ids_of(prepare_examples(texts[:1], replace(CONFIG, num_samples=128), bert_tokenizer))
    assert sorted(token for window in windows for token in window[0, 1:-1].tolist()) == sorted(ids)


def test_encoders_get_pieces_from_all_over_one_long_document(texts, bert_tokenizer):
    document = " ".join(texts)
    ids = bert_tokenizer(document, add_special_tokens=False, verbose=False)["input_ids"]
    windows = {
        tuple(window[0, 1:-1].tolist()) for window in ids_of(prepare_examples([document], CONFIG, bert_tokenizer))
    }
    starts = [start for start in range(0, len(ids), 30) if tuple(ids[start : start + 30]) in windows]
    assert len(starts) >= 4 and max(starts) > len(ids) // 4


def test_windows_of_published_draws_are_framed_and_full(texts, bert_tokenizer):
    windower = Windower.for_tokenizer(bert_tokenizer, 32, None)
    for window in windows_at_random_starts([" ".join(texts)], windower, 4, seed=0):
        assert window.shape == (1, 32)
        assert window[0, 0] == bert_tokenizer.cls_token_id and window[0, -1] == bert_tokenizer.sep_token_id
        assert not set(window[0, 1:-1].tolist()) & set(bert_tokenizer.all_special_ids)


def test_a_window_without_room_for_text_is_an_error(texts, bert_tokenizer):
    with pytest.raises(CalibrationError, match=r"nothing but \[CLS\] and \[SEP\]"):
        prepare_examples(texts, replace(CONFIG, sequence_length=2), bert_tokenizer)


def test_long_documents_are_tokenized_without_a_warning(texts, bert_tokenizer, caplog, capfd):
    bert_tokenizer.deprecation_warnings.clear()
    prepare_examples([" ".join(texts)], CONFIG, bert_tokenizer)
    assert "longer than" not in caplog.text + "".join(capfd.readouterr())


def test_text_without_a_tokenizer_is_an_error(texts):
    with pytest.raises(CalibrationError, match="no tokenizer"):
        prepare_examples(texts, CONFIG)


def test_wikitext2_draws_are_those_of_the_published_code(texts, lm_tokenizer):
    document = " ".join(texts)
    ids = lm_tokenizer(document, verbose=False)["input_ids"]
    random.seed(7)
    starts = [random.randint(0, len(ids) - 32 - 1) for _ in range(5)]
    windows = windows_at_random_starts([document], Windower(lm_tokenizer, 32), 5, seed=7)
    assert [window[0].tolist() for window in windows] == [ids[start : start + 32] for start in starts]


def test_c4_draws_are_those_of_the_published_code(texts, lm_tokenizer):
    documents = [texts[0], "short", " ".join(texts[1:4]), texts[5][:40], texts[6]]
    random.seed(7)
    expected = []
    while len(expected) < 6:
        ids = lm_tokenizer(documents[random.randint(0, len(documents) - 1)], verbose=False)["input_ids"]
        if len(ids) > 32:
            start = random.randint(0, len(ids) - 32 - 1)
            expected.append(ids[start : start + 32])
    windows = one_window_per_document(documents, Windower(lm_tokenizer, 32), 6, seed=7)
    assert [window[0].tolist() for window in windows] == expected


def test_c4_without_a_long_document_is_an_error(lm_tokenizer):
    with pytest.raises(CalibrationError, match="None of the 2 documents is longer than the 32 tokens"):
        one_window_per_document(["short", ""], Windower(lm_tokenizer, 32), 1, seed=0)
