"""Whatever is called calibration data: it gives examples that a model can read, or a CalibrationError."""

import gzip
import json

import torch
from hypothesis import given
from hypothesis import strategies as st
from support.fuzzing import fuzzed
from support.models import save_with_tokenizer, tiny
from transformers import AutoTokenizer

from optimum_si import CalibrationError, SIConfig
from optimum_si.calibration import prepare_examples
from optimum_si.calibration.files import READERS
from optimum_si.pipeline.checks import check_vocabulary


TEXT = st.text(st.characters(codec=None), max_size=40)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["text", "input_ids", "attention_mask", "content", "x", ""]), inner, max_size=3
        )
    ),
    max_leaves=12,
)
CONTENTS = st.one_of(
    st.binary(max_size=300),
    TEXT.map(lambda text: text.encode("utf-8", "surrogatepass")),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.lists(JSON, max_size=5).map(lambda rows: b"\n".join(json.dumps(row).encode() for row in rows)),
    JSON.map(lambda value: b"\xef\xbb\xbf" + json.dumps(value).encode()),
    st.sampled_from(
        [b"[" * 100_000, b"1" * 5000, b'["\\ud800 text"]', b'{"text": "\\udfff"}', b"\0" * 100, b"PAR1" * 9]
    ),
)
IDS = st.lists(st.integers(-3, 400), max_size=6)
OBJECTS = st.one_of(
    st.lists(JSON, max_size=4),
    st.lists(IDS.map(lambda ids: torch.tensor(ids, dtype=torch.long)), max_size=3),
    st.lists(st.fixed_dictionaries({"input_ids": IDS, "attention_mask": IDS}), max_size=3),
    st.dictionaries(st.text(max_size=4), JSON, max_size=3),
    SCALARS,
)

_made = {}


def tokenizer(tmp_path_factory):
    if "tokenizer" not in _made:
        folder = tmp_path_factory.mktemp("tokenizer")
        save_with_tokenizer(tiny("llama"), folder, "some text to learn from")
        _made["tokenizer"] = AutoTokenizer.from_pretrained(folder)
        _made["model"] = tiny("llama")
    return _made["tokenizer"], _made["model"]


def check(dataset, tmp_path_factory):
    own, model = tokenizer(tmp_path_factory)
    config = SIConfig(calibration={"num_samples": 2, "sequence_length": 8}).calibration
    try:
        examples = prepare_examples(dataset, config, own, 64)
        check_vocabulary(examples, model)
    except CalibrationError as error:
        assert str(error)
        return
    assert examples
    for example in examples:
        assert all(isinstance(value, torch.Tensor) and value.numel() for value in example.values())
        if "input_ids" in example:
            assert example["input_ids"].dtype == torch.int64 and int(example["input_ids"].min()) >= 0
            assert example["attention_mask"].shape == example["input_ids"].shape


@fuzzed
@given(CONTENTS, st.sampled_from(sorted(READERS)), st.sampled_from(["", ".gz", "cut"]))
def test_a_file_gives_examples_or_is_refused(tmp_path_factory, content, ending, packing):
    folder = tmp_path_factory.mktemp("data")
    file = folder / f"data{ending}{'.gz' if packing else ''}"
    packed = gzip.compress(content, mtime=0) if packing else content
    file.write_bytes(packed[: len(packed) * 2 // 3] if packing == "cut" else packed)
    check(str(file), tmp_path_factory)


@fuzzed
@given(OBJECTS)
def test_an_object_gives_examples_or_is_refused(tmp_path_factory, dataset):
    check(dataset, tmp_path_factory)
