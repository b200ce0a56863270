"""User's data -> texts: names, files, folders, globs, datasets and lists."""

import builtins
import gzip
import json

import datasets
import pyarrow
import pyarrow.parquet
import pytest
import torch

from optimum_si import CalibrationConfig, CalibrationError
from optimum_si.calibration import load_texts, prepare_examples
from optimum_si.calibration.windows import Windower, one_window_per_document, windows_at_random_starts


CONFIG = CalibrationConfig(num_samples=2, sequence_length=16)
C4_TRAIN = {"train": "en/c4-train.00000-of-01024.json.gz"}
C4_VALIDATION = {"validation": "en/c4-validation.00000-of-00008.json.gz"}


@pytest.fixture
def hub(monkeypatch):
    """Stands in for the Hub: remembers what was asked, answers with ``hub.rows``."""

    class Hub:
        rows = {"text": ["a", "", "b"]}
        asked: list = []

        def load_dataset(self, path, name=None, **options):
            self.asked.append((path, name, options))
            return datasets.Dataset.from_dict(self.rows)

    hub = Hub()
    hub.asked = []
    monkeypatch.setattr(datasets, "load_dataset", hub.load_dataset)
    return hub


@pytest.fixture
def offline_cache(monkeypatch, tmp_path):
    """The real ``load_dataset`` with its cache in a temporary folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_parquet(path, columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


@pytest.mark.parametrize(
    "dataset, evaluation, asked, texts",
    [
        ("wikitext2", False, ("Salesforce/wikitext", "wikitext-2-raw-v1", {"split": "train"}), ["a  b"]),
        ("wikitext2", True, ("Salesforce/wikitext", "wikitext-2-raw-v1", {"split": "test"}), ["a\n\n\n\nb"]),
        ("c4", False, ("allenai/c4", None, {"split": "train", "data_files": C4_TRAIN}), ["a", "", "b"]),
        ("c4", True, ("allenai/c4", None, {"split": "validation", "data_files": C4_VALIDATION}), ["a  b"]),
    ],
)
def test_short_names_load_the_published_splits(hub, dataset, evaluation, asked, texts):
    assert load_texts(dataset, CONFIG, evaluation) == texts
    assert hub.asked == [asked]


def test_c4_evaluation_is_the_first_1100_documents(hub):
    hub.rows = {"text": [str(number) for number in range(1200)]}
    assert load_texts("c4", CONFIG, evaluation=True) == [" ".join(map(str, range(1100)))]


@pytest.mark.parametrize("option", ["split", "dataset_config"])
def test_a_published_split_contradicts_another_one(hub, option):
    with pytest.raises(CalibrationError, match="'Salesforce/wikitext'"):
        load_texts("wikitext2", CalibrationConfig(**{option: "validation"}))


def test_published_windows_are_drawn_as_in_the_papers(hub, texts, lm_tokenizer):
    hub.rows = {"text": texts}
    windower = Windower(lm_tokenizer, CONFIG.sequence_length)
    draws = {
        "wikitext2": windows_at_random_starts([" ".join(texts)], windower, CONFIG.num_samples, CONFIG.seed),
        "c4": one_window_per_document(texts, windower, CONFIG.num_samples, CONFIG.seed),
    }
    for dataset, expected in draws.items():
        examples = prepare_examples(dataset, CONFIG, lm_tokenizer)
        assert [example["input_ids"].tolist() for example in examples] == [window.tolist() for window in expected]


def test_wikitext2_loads_for_real(offline_cache, texts, lm_tokenizer):
    repository = offline_cache / "Salesforce" / "wikitext" / "wikitext-2-raw-v1"
    write_parquet(repository / "train-00000-of-00001.parquet", {"text": texts})
    write_parquet(repository / "test-00000-of-00001.parquet", {"text": texts[:2]})
    files = [{"split": split, "path": f"wikitext-2-raw-v1/{split}-*"} for split in ("train", "test")]
    card = {"configs": [{"config_name": "wikitext-2-raw-v1", "data_files": files}]}
    (repository.parent / "README.md").write_text(f"---\n{json.dumps(card)}\n---\n")
    assert len(prepare_examples("wikitext2", CONFIG, lm_tokenizer)) == 2
    assert load_texts("wikitext2", CONFIG, evaluation=True) == ["\n\n".join(texts[:2])]


def test_c4_loads_for_real(offline_cache, texts, lm_tokenizer):
    for data_files in (C4_TRAIN, C4_VALIDATION):
        for name in data_files.values():
            write_lines(offline_cache / "allenai" / "c4" / name, [{"text": text, "url": "u"} for text in texts])
    assert len(prepare_examples("c4", CONFIG, lm_tokenizer)) == 2
    assert load_texts("c4", CONFIG, evaluation=True) == [" ".join(texts)]


def test_hub_name_config_split_and_column_are_passed_on(hub):
    hub.rows = {"title": ["t"], "story": ["s"]}
    config = CalibrationConfig(dataset_config="en", split="train[:1%]", column="story")
    assert load_texts("owner/name", config) == ["s"]
    assert hub.asked == [("owner/name", "en", {"split": "train[:1%]"})]


def test_split_of_a_hub_name_is_train_or_test(hub):
    load_texts("name", CONFIG)
    load_texts("name", CONFIG, evaluation=True)
    assert [options["split"] for _, _, options in hub.asked] == ["train", "test"]


def test_dataset_of_the_config_is_the_default(hub, texts, lm_tokenizer):
    hub.rows = {"text": texts}
    config = CalibrationConfig(num_samples=1, sequence_length=16, dataset="name")
    assert len(prepare_examples(None, config, lm_tokenizer)) == 1


def test_no_dataset_at_all_is_an_error_that_says_what_to_give(lm_tokenizer):
    with pytest.raises(CalibrationError, match="no calibration data: give a dataset"):
        prepare_examples(None, CONFIG, lm_tokenizer)


def test_what_the_hub_says_is_in_the_error(monkeypatch):
    def fail(**arguments):
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(CalibrationError, match="dataset='owner/name'.*no route"):
        load_texts("owner/name", CONFIG)


def test_a_missing_datasets_library_is_an_error_with_the_pip_command(monkeypatch):
    real = builtins.__import__

    def without_datasets(name, *arguments, **options):
        if name == "datasets":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_datasets)
    with pytest.raises(CalibrationError, match=r'pip install "optimum-si\[datasets\]"'):
        load_texts("wikitext2", CONFIG)


@pytest.mark.parametrize("suffix", [".txt", ".md", ".py"])
def test_a_text_file_is_one_document(tmp_path, suffix):
    (tmp_path / f"a{suffix}").write_text("été\n\nline", encoding="utf-8")
    assert load_texts(str(tmp_path / f"a{suffix}"), CONFIG) == ["été\n\nline"]
    assert load_texts(tmp_path / f"a{suffix}", CONFIG) == ["été\n\nline"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz"])
def test_json_lines_are_one_document_a_row(tmp_path, name):
    write_lines(tmp_path / name, [{"id": "1", "text": "a\u2028b"}, {"id": "2", "text": None}])
    assert load_texts(str(tmp_path / name), CONFIG) == ["a\u2028b", ""]


def test_json_holds_a_list_of_rows_or_of_strings(tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps([{"content": "a"}, {"content": "b"}]))
    (tmp_path / "strings.json").write_text(json.dumps(["a", "b"]))
    assert load_texts(str(tmp_path / "rows.json"), CONFIG) == ["a", "b"]
    assert load_texts(str(tmp_path / "strings.json"), CONFIG) == ["a", "b"]


def test_parquet_gives_its_text_column(tmp_path):
    write_parquet(tmp_path / "a.parquet", {"id": [1, 2], "text": ["a", None], "note": ["x", "y"]})
    assert load_texts(str(tmp_path / "a.parquet"), CONFIG) == ["a", ""]
    assert load_texts(str(tmp_path / "a.parquet"), CalibrationConfig(column="note")) == ["x", "y"]


def test_the_only_column_of_strings_is_the_text(tmp_path):
    write_lines(tmp_path / "a.jsonl", [{"id": 1, "story": "a"}])
    assert load_texts(str(tmp_path / "a.jsonl"), CONFIG) == ["a"]


def test_an_unclear_or_missing_column_is_an_error_that_lists_the_columns(tmp_path):
    write_lines(tmp_path / "a.jsonl", [{"one": "a", "two": "b"}])
    with pytest.raises(CalibrationError, match=r"set calibration.column to one of \['one', 'two'\]"):
        load_texts(str(tmp_path / "a.jsonl"), CONFIG)
    with pytest.raises(CalibrationError, match=r"named 'three'.*\['one', 'two'\]"):
        load_texts(str(tmp_path / "a.jsonl"), CalibrationConfig(column="three"))


def test_a_folder_is_all_readable_files_below_it_and_a_glob_its_matches(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.txt").write_text("a")
    (tmp_path / "b.md").write_text("b")
    (tmp_path / "c.bin").write_text("c")
    (tmp_path / ".hidden.txt").write_text("h")
    write_lines(tmp_path / "d.jsonl", [{"text": "d"}])
    assert load_texts(str(tmp_path), CONFIG) == ["b", "d", "a"]
    assert load_texts(f"{tmp_path}/*", CONFIG) == ["b", "d"]
    assert load_texts(f"{tmp_path}/**/*.txt", CONFIG) == ["a"]


def test_a_folder_with_a_split_is_read_by_datasets(offline_cache):
    write_parquet(offline_cache / "corpus" / "validation.parquet", {"text": ["v"]})
    write_parquet(offline_cache / "corpus" / "train.parquet", {"text": ["t"]})
    assert load_texts("corpus", CalibrationConfig(split="validation")) == ["v"]


def test_a_dataset_saved_to_disk_is_read_by_datasets(tmp_path):
    dataset = datasets.Dataset.from_dict({"text": ["a"]})
    dataset.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": dataset}).save_to_disk(tmp_path / "splits")
    assert load_texts(str(tmp_path / "one"), CONFIG) == load_texts(str(tmp_path / "splits"), CONFIG) == ["a"]


@pytest.mark.parametrize("name", ["", "no/such/file", "missing.txt", "missing.json.gz", "./missing", "*.txt", "a/"])
def test_a_path_that_exists_nowhere_is_an_error_and_no_question_to_the_hub(hub, name):
    with pytest.raises(CalibrationError, match="no file, folder or glob match of that name exists"):
        load_texts(name, CONFIG)
    assert not hub.asked


def test_files_that_cannot_be_read_are_named_in_the_error(tmp_path):
    (tmp_path / "a.csv").write_text("a")
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\nnonsense')
    (tmp_path / "bad.parquet").write_text("nonsense")
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\xff")
    (tmp_path / "bad.txt.gz").write_bytes(b"nonsense")
    for name, message in {
        "a.csv": "accepted: .txt, .md",
        "bad.jsonl": "Line 2 of .*bad.jsonl is no JSON",
        "bad.parquet": "bad.parquet cannot be read as Parquet",
        "bad.txt": "bad.txt cannot be read as UTF-8",
        "bad.txt.gz": "bad.txt.gz cannot be read",
    }.items():
        with pytest.raises(CalibrationError, match=message):
            load_texts(str(tmp_path / name), CONFIG)


def test_an_empty_file_list_or_dataset_is_an_error(tmp_path, lm_tokenizer):
    (tmp_path / "a.jsonl").write_text("\n")
    write_parquet(tmp_path / "a.parquet", {"text": pyarrow.array([], pyarrow.string())})
    empty = datasets.Dataset.from_dict({"text": []})
    for dataset in ([], (), empty, str(tmp_path / "a.jsonl"), str(tmp_path / "a.parquet")):
        with pytest.raises(CalibrationError, match="is empty"):
            prepare_examples(dataset, CONFIG, lm_tokenizer)


def test_a_mixture_of_texts_and_other_things_is_an_error(tmp_path):
    with pytest.raises(CalibrationError, match="Row 1 of The dataset is a int and row 0 a str"):
        load_texts(["a", 1], CONFIG)
    (tmp_path / "a.txt").write_text("a")
    write_lines(tmp_path / "b.jsonl", [{"input_ids": [1, 2]}])
    with pytest.raises(CalibrationError, match="hold text and tokens"):
        load_texts(str(tmp_path), CONFIG)


def test_lists_datasets_columns_and_records_of_text_are_the_same_data():
    dataset = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    splits = datasets.DatasetDict({"train": dataset, "test": dataset.select([0])})
    for given in (["a", "b"], ("a", "b"), dataset, dataset["text"], splits, [{"text": "a"}, {"text": "b"}]):
        assert load_texts(given, CONFIG) == ["a", "b"]
    assert load_texts(splits, CONFIG, evaluation=True) == ["a"]
    with pytest.raises(CalibrationError, match=r"no split 'dev'; it has \['train', 'test'\]"):
        load_texts(splits, CalibrationConfig(split="dev"))


def test_iterators_and_numbers_are_refused_with_what_is_accepted():
    for given in (iter(["a"]), (text for text in "a"), 3):
        with pytest.raises(CalibrationError, match="accepted: a Hub name.*islice"):
            load_texts(given, CONFIG)


def test_tokenized_data_has_no_texts():
    with pytest.raises(CalibrationError, match="already tokenized"):
        load_texts(torch.ones(1, 4, dtype=torch.long), CONFIG)
