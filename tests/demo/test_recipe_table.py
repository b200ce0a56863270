"""The table of the default demo: what its shares mean, and that they claim nothing where there is nothing to say."""

import math
import sys

import pytest
from support.models import tiny, token_windows

from optimum_si import CalibrationError, perplexity
from optimum_si.demo.live_output import LiveTable, clock, minutes
from optimum_si.demo.recipe_table import RecipeTable, Row, percent, windows_of


@pytest.fixture
def table() -> RecipeTable:
    """A dense model at 10 on its text, Wanda at 30, without a model."""
    made = RecipeTable({"articles": token_windows(1)})
    made.rows += [Row("dense", (10.0,), None), Row("Wanda", (30.0,), 1.0)]
    return made


@pytest.mark.parametrize(
    ("reached", "closed"), [(30.0, 0.0), (20.0, 0.5), (10.0, 1.0), (35.0, -0.25), (math.inf, None), (math.nan, None)]
)
def test_closed_is_the_share_of_what_the_baseline_lost(table, reached, closed):
    share = table.closed(Row("other", (reached,), 1.0), 0)
    assert math.isnan(share) if closed is None else share == pytest.approx(closed)


def test_nothing_is_closed_by_the_dense_model_the_baseline_or_where_it_lost_nothing(table):
    assert percent(table.closed(table.rows[1], 0)) == "-"
    table.rows[1] = Row("Wanda", (9.0,), 1.0)
    assert percent(table.closed(Row("other", (9.5,), 1.0), 0)) == "-"


def test_a_row_holds_the_perplexities_of_its_model_on_each_text(capsys):
    model, texts = tiny("llama"), {"articles": token_windows(4), "news": token_windows(3, seed=2)}
    table = RecipeTable(texts)
    table.add("dense", model)
    table.add("the same", model, 61.0)
    expected = tuple(perplexity(model, texts=windows, progress=False) for windows in texts.values())
    assert table.rows[1].perplexities == pytest.approx(expected) and expected[0] != expected[1]
    assert capsys.readouterr().out.splitlines()[-1].endswith("1 min 01 s")


def test_columns_stay_aligned(capsys):
    table = LiveTable(["recipe", "number"], [10, 8])
    table.add(["a", "1.00"])
    table.add(["SI + Wanda", "10000.00"])
    assert {len(line) for line in capsys.readouterr().out.splitlines()} == {20}


def test_windows_are_cut_from_joined_texts():
    def tokenizer(text, verbose):
        return {"input_ids": [ord(character) for character in text]}

    windows = windows_of(tokenizer, ["abc", "defgh"], 9, 4)
    assert windows.tolist() == [[ord(character) for character in part] for part in ("abc\n", "\ndef")]
    assert len(windows_of(tokenizer, ["abc", "defgh"], 1, 4)) == 1
    with pytest.raises(CalibrationError, match="give more text"):
        windows_of(tokenizer, ["abc"], 1, 4)


def test_a_clock_is_for_terminals_and_leaves_nothing(capsys, monkeypatch):
    with clock("pruning"):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with pytest.raises(ValueError), clock("pruning"):
        raise ValueError
    shown = capsys.readouterr().err
    assert shown.startswith("\rpruning ... 0 s") and shown.endswith("\r\x1b[K")


def test_times_are_for_readers():
    assert [minutes(value) for value in (0.4, 59.4, 59.6, 125)] == ["0 s", "59 s", "1 min 00 s", "2 min 05 s"]
