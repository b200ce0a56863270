"""Windows of a recovery come from the calibration data and share no text with what the fits have seen."""

import warnings

import pytest
import torch

from optimum_si import CalibrationConfig
from optimum_si.calibration import fresh_examples, prepare_examples
from optimum_si.calibration.windows import one_window_per_document, windows_at_random_starts


LENGTH = 48


def drawn(texts, tokenizer, count=3, fresh=4, seed=0, length=LENGTH):
    config = CalibrationConfig(num_samples=count, sequence_length=length, seed=seed)
    seen = prepare_examples(texts, config, tokenizer)
    return seen, fresh_examples(seen, fresh, texts, config, tokenizer)


def rows(examples):
    return [example["input_ids"][0].tolist() for example in examples]


def shared(seen, fresh, run=32):
    """Whether the lists of ids share so many tokens in a row."""
    known = {tuple(ids[i : i + run]) for ids in rows(seen) for i in range(max(len(ids) - run, 0) + 1)}
    return any(tuple(ids[i : i + run]) in known for ids in rows(fresh) for i in range(max(len(ids) - run, 0) + 1))


@pytest.mark.parametrize("count", [1, 5, 20])
@pytest.mark.parametrize("seed", [0, 1])
def test_windows_are_full_and_new_and_those_of_the_fits_stay(texts, lm_tokenizer, count, seed):
    seen, fresh = drawn(texts, lm_tokenizer, count, 4, seed)
    assert len(fresh) == 4 and {len(ids) for ids in rows(fresh)} == {LENGTH}
    assert not any(ids in rows(seen) for ids in rows(fresh))
    assert rows(seen) == rows(drawn(texts, lm_tokenizer, count, 1, seed)[0])
    assert rows(fresh) == rows(drawn(texts, lm_tokenizer, count, 4, seed)[1])


@pytest.mark.parametrize("draw", [windows_at_random_starts, one_window_per_document])
def test_draws_at_random_places_do_not_overlap_with_what_was_seen(monkeypatch, texts, lm_tokenizer, draw):
    monkeypatch.setattr("optimum_si.calibration.prepare.packed_windows", draw)
    seen, fresh = drawn([" ".join(texts)] * 2 if draw is windows_at_random_starts else texts, lm_tokenizer, 3, 4)
    assert fresh and not shared(seen, fresh)


def test_encoders_get_documents_that_hold_as_many_tokens(texts, bert_tokenizer):
    seen, fresh = drawn(texts, bert_tokenizer, 2, 3)
    assert not any(ids in rows(seen) for ids in rows(fresh))
    assert 3 * LENGTH <= sum(map(len, rows(fresh))) < 4 * LENGTH
    assert all(torch.equal(example["attention_mask"], torch.ones_like(example["input_ids"])) for example in fresh)


def test_short_text_gives_what_it_has_and_says_so(texts, lm_tokenizer):
    with pytest.warns(UserWarning, match=r"holds \d+ further windows of 48 tokens, fewer than.*=500"):
        seen, fresh = drawn(texts, lm_tokenizer, 3, 500)
    assert 0 < len(fresh) < 500 and not any(ids in rows(seen) for ids in rows(fresh))


def test_without_further_text_what_was_seen_serves_again(texts, lm_tokenizer):
    with pytest.warns(UserWarning) as caught:
        seen, fresh = drawn(texts[:2], lm_tokenizer, 100, 4)
    assert rows(fresh) == rows(seen)
    assert len([entry for entry in caught if "nothing that the fits have not seen" in str(entry.message)]) == 1


def test_tokenized_data_serves_again_and_zero_asks_for_that(texts, lm_tokenizer):
    data = torch.arange(40).reshape(4, 10)
    config = CalibrationConfig()
    seen = prepare_examples(data, config)
    with pytest.warns(UserWarning, match="tokenized data holds no windows but the 4"):
        assert rows(fresh_examples(seen, 8, data, config)) == rows(seen)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rows(fresh_examples(seen, 0, data, config)) == rows(seen)


def test_all_that_was_seen_is_left_out_however_much_it_is(texts, lm_tokenizer):
    config = CalibrationConfig(num_samples=2, sequence_length=LENGTH)
    seen = prepare_examples(texts, config, lm_tokenizer)
    for _ in range(3):
        fresh = fresh_examples(seen, 4, texts, config, lm_tokenizer)
        assert len(fresh) == 4 and not any(ids in rows(seen) for ids in rows(fresh))
        seen += fresh
