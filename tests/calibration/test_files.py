"""Files of others: bounded in memory whatever they unpack to, and each fault is one line with the file's name."""

import gzip
import json
import tracemalloc

import pytest
from support.models import save_with_tokenizer, tiny
from transformers import AutoTokenizer

from optimum_si import CalibrationError, SIConfig
from optimum_si.calibration import files, prepare_examples
from optimum_si.calibration.files import find_files, read_files
from optimum_si.calibration.windows import well_formed


def rows_of(path):
    return read_files(find_files(str(path)), None).rows


def test_an_archive_is_read_no_further_than_needed(tmp_path):
    with gzip.open(tmp_path / "bomb.txt.gz", "wb", compresslevel=9) as bomb:
        for _ in range(64):
            bomb.write(b"a line of text\n" * (1 << 18))
    assert (tmp_path / "bomb.txt.gz").stat().st_size < 2**21
    tracemalloc.start()
    with pytest.warns(UserWarning, match="the first 32 MiB"):
        (text,) = rows_of(tmp_path / "bomb.txt.gz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(text) <= files.MOST_OF_FILE and text.endswith("\n") and peak < 6 * files.MOST_OF_FILE


def test_of_json_lines_the_first_are_read_and_no_half_of_one(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOST_OF_FILE", 1000)
    lines = [json.dumps({"text": f"row {number}"}) for number in range(200)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    with pytest.warns(UserWarning, match="rows.jsonl"):
        rows = rows_of(tmp_path / "rows.jsonl")
    assert 0 < len(rows) < 200 and rows == [f"row {number}" for number in range(len(rows))]


def test_one_value_that_is_too_long_says_what_to_give(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOST_OF_FILE", 1000)
    (tmp_path / "all.json").write_text(json.dumps([{"text": "x" * 50}] * 100))
    with pytest.warns(UserWarning), pytest.raises(CalibrationError, match="all.json.*JSON lines"):
        rows_of(tmp_path / "all.json")


def test_of_many_files_the_first_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOST_OF_ALL", 1000)
    for number in range(20):
        (tmp_path / f"{number:02}.txt").write_text("x" * 100)
    with pytest.warns(UserWarning, match="only the first 10 of 20 files"):
        assert len(rows_of(tmp_path)) == 10


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt.gz", b"no archive"),
        ("a.txt.gz", gzip.compress(b"text" * 99, mtime=0)[:-9]),
        ("a.txt.gz", gzip.compress(b"text" * 99, mtime=0)[:20] + b"\xff" * 20),
        ("a.txt", b"\xff\xfe\x00"),
        ("a.json", b"[" * 100_000),
        ("a.jsonl", b"[" * 100_000),
        ("a.json", b"9" * 5000),
        ("a.jsonl", b'{"text": 1}\n' + b"9" * 5000),
    ],
    ids=str,
)
def test_damaged_files_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CalibrationError, match=name):
        rows_of(tmp_path / name)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.txt"])
def test_a_mark_of_byte_order_is_no_text(tmp_path, name):
    text = "some text" if name == "a.txt" else '{"text": "some text"}'
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert rows_of(tmp_path / name) == ["some text"]


def test_halves_of_characters_become_a_mark(tmp_path):
    assert well_formed("a\ud800b\udfff é 😀") == "a\ufffdb\ufffd é 😀"
    save_with_tokenizer(tiny("llama"), tmp_path / "model", "some text")
    (tmp_path / "a.jsonl").write_text('{"text": "\\ud800 some text, some text, some text, some text"}\n')
    config = SIConfig(calibration={"num_samples": 1, "sequence_length": 8}).calibration
    assert prepare_examples(str(tmp_path / "a.jsonl"), config, AutoTokenizer.from_pretrained(tmp_path / "model"))


def test_a_table_is_read_no_further_than_needed(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    monkeypatch.setattr(files, "MOST_OF_FILE", 10_000)
    parquet.write_table(pyarrow.table({"text": ["x" * 100] * 5000}), tmp_path / "rows.parquet")
    with pytest.warns(UserWarning, match="rows.parquet: its first"):
        assert 100 <= len(rows_of(tmp_path / "rows.parquet")) <= 200


def test_rows_of_many_files_are_counted_by_what_they_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOST_OF_ALL", 1000)
    for number in range(20):
        with gzip.open(tmp_path / f"{number:02}.jsonl.gz", "wt") as file:
            file.write(json.dumps({"text": "x" * 400}) + "\n")
    with pytest.warns(UserWarning, match="only the first 3 of 20 files"):
        assert len(rows_of(tmp_path)) == 3


def test_a_chat_template_that_never_ends_is_ended(tmp_path, monkeypatch):
    from optimum_si.calibration import own_text

    monkeypatch.setattr(own_text, "SECONDS", 0.5)
    save_with_tokenizer(tiny("llama"), tmp_path, "some text")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    tokenizer.chat_template = loop
    with pytest.raises(CalibrationError, match="chat template does not come to an end within 0.5 s"):
        own_text.Script.of(tiny("llama"), tokenizer)
