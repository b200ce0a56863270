"""What lies beside the weights goes along with the result: the same pipeline, the same embeddings, and no code."""

import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import snapshot_download
from PIL import Image
from support.models import prune, save_with_tokenizer, tiny, token_windows
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    ViTImageProcessorPil,
    pipeline,
)

from optimum_si import CheckpointError, SIConfig, SIPruner
from optimum_si.checkpoint.load import load_tokenizer
from optimum_si.checkpoint.processor import load_processor
from optimum_si.checkpoint.side_files import find_side_files


SENTENCES = [f"the cat number {number} sat on a mat" for number in range(8)]
PLAIN = {"method": "wanda", "sparsity": 1e-4, "induction": None}
CARGO = {
    "preprocessor_config.json": b"{}",
    "processor_config.json": b"{}",
    "video_preprocessor_config.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "additional_chat_templates/tools.jinja": b"{{ tools }}",
    "config_sentence_transformers.json": b"{}",
    "modules.json": json.dumps([{"path": ""}, {"path": "1_Pooling"}, {"path": "2_Dense"}]).encode(),
    "1_Pooling/config.json": b'{"pooling_mode_cls_token": true}',
    "2_Dense/config.json": b"{}",
    "2_Dense/model.safetensors": b"weights of a dense layer",
    "tokenizer.model": b"sentencepiece",
    "LICENSE": b"mine",
    "NOTICE.txt": b"of others",
}
STAYS = {
    "README.md": b"# dense",
    "pytorch_model.bin": b"old weights",
    "onnx/model.onnx": b"an export",
    "training_args.bin": b"pickle",
    "trainer_state.json": b"{}",
    "checkpoint-1/preprocessor_config.json": b"{}",
}


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def names(folder):
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def loaded_folder(tmp_path):
    """A llama with all that may lie beside weights, and with what stays behind."""
    folder = tmp_path / "source"
    tiny("llama").save_pretrained(folder)
    write(folder, CARGO | STAYS)
    return folder


def copied(source, tokenizer=None):
    """What goes along from a place, without any model."""
    target = Path(f"{source}-target")
    target.mkdir()
    find_side_files(source).save(target, tokenizer)
    return target


@pytest.fixture
def embedder(tmp_path):
    """A folder that sentence-transformers loads: first token, dense layer, normalized; with a prompt."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules

    words = sorted({word for sentence in SENTENCES for word in sentence.split()})
    vocabulary = {word: place for place, word in enumerate(["[PAD]", "[UNK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    BertModel(BertConfig(vocab_size=64, max_position_embeddings=40, **sizes)).save_pretrained(tmp_path / "bert")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    fast.save_pretrained(tmp_path / "bert")
    transformer = modules.Transformer(str(tmp_path / "bert"), max_seq_length=32)
    parts = [transformer, modules.Pooling(32, pooling_mode="cls"), modules.Dense(32, 8), modules.Normalize()]
    made = SentenceTransformer(modules=parts, device="cpu", prompts={"query": "the mat"})
    made.save_pretrained(str(tmp_path / "embedder"))
    return tmp_path / "embedder"


def test_a_pruned_sentence_embedder_gives_the_same_embeddings(embedder, tmp_path):
    from sentence_transformers import SentenceTransformer

    prune(str(embedder), save_dir=tmp_path / "out", data=token_windows(), **PLAIN)
    dense, pruned = (SentenceTransformer(str(folder), device="cpu") for folder in (embedder, tmp_path / "out"))
    assert [type(module) for module in dense] == [type(module) for module in pruned] and len(pruned) == 4
    assert dense.prompts == pruned.prompts and pruned.prompts["query"]
    for prompt in (None, "query"):
        options = {"prompt_name": prompt, "convert_to_tensor": True}
        first, second = (model.encode(SENTENCES, **options) for model in (dense, pruned))
        assert second.shape == (8, 8) and torch.cosine_similarity(first, second).min() > 0.999


def test_a_pruned_image_classifier_is_a_pipeline_with_its_processor(tmp_path, trace_cache):
    from optimum_si.onnx import export

    tiny("vit").save_pretrained(tmp_path / "dense")
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "dense")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8))
    data = [{"pixel_values": torch.randn(3, 16, 16)} for _ in range(8)]
    prune(str(tmp_path / "dense"), save_dir=tmp_path / "out", data=data, **PLAIN)
    dense, pruned = (
        {answer["label"]: answer["score"] for answer in pipeline("image-classification", model=str(folder))(image)}
        for folder in (tmp_path / "dense", tmp_path / "out")
    )
    assert pruned == pytest.approx(dense, abs=1e-3)
    export(tmp_path / "out", tmp_path / "onnx")
    name = "preprocessor_config.json"
    assert (tmp_path / "onnx" / name).read_bytes() == (tmp_path / "dense" / name).read_bytes()


@pytest.mark.parametrize("how", ["by path", "in memory"])
def test_all_that_belongs_to_a_model_goes_along_and_nothing_else(loaded_folder, tmp_path, how):
    model = str(loaded_folder) if how == "by path" else AutoModelForCausalLM.from_pretrained(loaded_folder)
    prune(model, save_dir=tmp_path / "out", **PLAIN)
    found = names(tmp_path / "out")
    for name, content in CARGO.items():
        assert (tmp_path / "out" / name).read_bytes() == content
    ours = {"README.md", "config.json", "generation_config.json", "model.safetensors"}
    assert found == set(CARGO) | ours | {"si_config.json", "si_report.json"}
    assert (tmp_path / "out" / "README.md").read_bytes() != STAYS["README.md"]


def test_they_stay_with_every_further_result(loaded_folder, tmp_path):
    recipe = {"pattern": "2:4", "induction": {"epochs": 1}}
    SIPruner.from_pretrained(loaded_folder).induce(
        SIConfig("wanda", **recipe), token_windows(), save_dir=tmp_path / "induced", progress=False
    )
    prune(str(tmp_path / "induced"), save_dir=tmp_path / "pruned", **recipe)
    again, place = SIPruner.from_pretrained(tmp_path / "pruned"), {"save_dir": tmp_path / "pruned", "overwrite": True}
    again.recover({"num_samples": 0}, token_windows(), dense=loaded_folder, **place)
    assert again.report.recovery is not None and set(CARGO) <= names(tmp_path / "pruned")
    again.save_pretrained(tmp_path / "copy")
    assert set(CARGO) <= names(tmp_path / "copy")


def test_they_are_published(loaded_folder, local_hub):
    prune(str(loaded_folder), **PLAIN).push_to_hub("me/sparse", token="hf_fake")
    assert set(CARGO) <= set(local_hub.repositories["me/sparse"])


@pytest.mark.parametrize("offline", [False, True])
def test_a_repository_gives_the_same_files_as_a_folder(loaded_folder, local_hub, tmp_path, monkeypatch, offline):
    local_hub.repositories["org/model"] = {
        name: (loaded_folder / name).read_bytes() for name in names(loaded_folder)
    } | {"evil.py": b"raise SystemExit", "../up.json": b"{}", "1_Pooling/../../out.json": b"{}"}
    if offline:
        cached = [*CARGO, "config.json", "generation_config.json", "model.safetensors"]
        snapshot_download("org/model", allow_patterns=cached)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    pruner = prune("org/model", **PLAIN)
    # Nothing is asked for when the result is saved.
    local_hub.repositories.clear()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        pruner.save_pretrained(tmp_path / "out" / "deep")
    assert names(tmp_path) - names(loaded_folder.parent) == set()
    assert set(CARGO) <= names(tmp_path / "out" / "deep")
    assert not any(name.endswith((".py", "up.json", "out.json")) for name in names(tmp_path / "out"))
    assert offline or any("'evil.py' (Python code)" in str(one.message) for one in said)


def test_a_snapshot_in_the_cache_is_a_folder_like_others(loaded_folder, local_hub, tmp_path):
    local_hub.repositories["org/model"] = {name: (loaded_folder / name).read_bytes() for name in names(loaded_folder)}
    snapshot = Path(snapshot_download("org/model"))
    assert (snapshot / "LICENSE").is_symlink()
    prune(str(snapshot), save_dir=tmp_path / "out", **PLAIN)
    assert set(CARGO) <= names(tmp_path / "out") and not (tmp_path / "out" / "LICENSE").is_symlink()


def test_a_vocabulary_does_not_go_along_with_another_tokenizer(tmp_path):
    save_with_tokenizer(tiny("llama"), tmp_path / "own", "some text that a tokenizer learns from")
    write(tmp_path / "own", {"vocab.txt": b"old", "special_tokens_map.json": b"{}", "LICENSE": b"mine"})
    own, none = AutoTokenizer.from_pretrained(tmp_path / "own"), None
    other = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    found = {}
    for name, tokenizer in (("own", own), ("none", none), ("other", other)):
        found[name] = tmp_path / name / "out"
        find_side_files(tmp_path / "own").save(found[name], tokenizer)
    assert names(found["own"]) == {"vocab.txt", "tokenizer.json", "LICENSE", "generation_config.json"}
    assert names(found["none"]) == names(found["own"]) | {"special_tokens_map.json", "tokenizer_config.json"}
    assert names(found["other"]) == {"LICENSE", "generation_config.json"}


def test_what_the_result_holds_already_is_kept(tmp_path):
    write(tmp_path / "source", {"generation_config.json": b"old", "preprocessor_config.json": b"old"})
    write(tmp_path / "out", {"generation_config.json": b"new"})
    find_side_files(tmp_path / "source").save(tmp_path / "out", None)
    assert (tmp_path / "out" / "generation_config.json").read_bytes() == b"new"
    assert (tmp_path / "out" / "preprocessor_config.json").read_bytes() == b"old"


def test_code_stays_behind_and_is_named(loaded_folder, tmp_path):
    write(loaded_folder, {"modeling_own.py": b"", "1_Pooling/pooling.py": b"", "LICENSE.py": b""})
    with pytest.warns(UserWarning, match=r"'1_Pooling/pooling.py' \(Python code\), 'LICENSE.py' .*'modeling_own.py'"):
        target = copied(loaded_folder)
    assert not [name for name in names(target) if name.endswith(".py")]


def test_links_pipes_and_devices_stay_behind_and_are_named(tmp_path):
    source = tmp_path / "source"
    (tmp_path / "secrets").mkdir()
    write(tmp_path, {"secret": b"secret", "secrets/config.json": b"secret"})
    write(source, {"modules.json": json.dumps([{"path": "1_Pooling"}, {"path": "2_Dense"}]).encode(), "LICENSE": b"a"})
    (source / "preprocessor_config.json").symlink_to(tmp_path / "secret")
    (source / "processor_config.json").symlink_to("processor_config.json")
    (source / "1_Pooling").symlink_to(tmp_path / "secrets")
    (source / "vocab.txt").symlink_to("/dev/zero")
    (source / "NOTICE").symlink_to("LICENSE")
    os.mkfifo(source / "chat_template.jinja")
    with pytest.warns(UserWarning, match="do not go along") as said:
        target = copied(source)
    assert names(target) == {"modules.json", "LICENSE", "NOTICE"}
    for name in ("preprocessor_config.json", "processor_config.json", "vocab.txt", "chat_template.jinja"):
        assert f"'{name}' (" in str(said[0].message)


@pytest.mark.parametrize(
    "path",
    ["..", "../secrets", "/etc", ".", "", "./.", ".git", "onnx", "report", "a/../../secrets", "..\\secrets", 3, {}],
)
def test_a_module_lies_in_a_folder_of_its_own(tmp_path, recwarn, path):
    write(tmp_path, {"secrets/config.json": b"secret", "source/pytorch_model.bin": b"weights"})
    for folder in (".git", "onnx", "report"):
        write(tmp_path / "source", {f"{folder}/config.json": b"{}"})
    write(tmp_path / "source", {"modules.json": json.dumps([{"path": path}, 3]).encode()})
    assert names(copied(tmp_path / "source")) == {"modules.json"}


@pytest.mark.parametrize(
    "content", [b"[" * 200_000, b"\xff\xfe", b"", b"{}", b"3"], ids=["deep", "bytes", "", "{}", "3"]
)
def test_a_damaged_list_of_modules_is_named(tmp_path, content):
    write(tmp_path / "source", {"modules.json": content, "LICENSE": b"mine"})
    with pytest.warns(UserWarning, match=r"'modules.json' \(damaged\)"):
        assert names(copied(tmp_path / "source")) == {"LICENSE"}


def test_files_of_gigabytes_stay_behind(tmp_path):
    write(tmp_path / "source", {"LICENSE": b"mine"})
    with (tmp_path / "source" / "vocab.txt").open("wb") as file:
        file.truncate(1 << 33)
    with pytest.warns(UserWarning, match=r"'vocab.txt' \(8,589,934,592 bytes\)"):
        assert names(copied(tmp_path / "source")) == {"LICENSE"}


def test_names_of_others_are_shown_without_effect(tmp_path):
    write(tmp_path / "source", {"a\n\x1b[2J.py": b""})
    with pytest.warns(UserWarning) as said:
        copied(tmp_path / "source")
    assert str(said[0].message).isprintable()


def test_a_router_at_the_root_names_its_modules(tmp_path):
    types = {"query_0_Static": "sentence_transformers.models.Static", "": "sentence_transformers.models.Transformer"}
    router = json.dumps({"types": types}).encode()
    write(
        tmp_path / "source", {"router_config.json": router, "query_0_Static/model.safetensors": b"x", "b/c.json": b""}
    )
    assert names(copied(tmp_path / "source")) == {"router_config.json", "query_0_Static/model.safetensors"}


@pytest.mark.parametrize("source", ["", "no/such-model", "/no/such/folder"])
def test_a_model_from_nowhere_has_nothing_beside_it(tmp_path, recwarn, source):
    model = tiny("llama")
    model.config._name_or_path = source
    assert not find_side_files(source).files and not recwarn
    prune(model, save_dir=tmp_path / "out", **PLAIN)
    assert not [one for one in recwarn if "beside" in str(one.message)]


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"])
def test_a_tokenizer_of_gigabytes_is_not_read_and_named(tmp_path, name):
    save_with_tokenizer(tiny("llama"), tmp_path / "own", "some text that a tokenizer learns from")
    with (tmp_path / "own" / name).open("ab") as file:
        file.truncate(1 << 33)
    with pytest.warns(UserWarning, match=f"cannot be loaded, and is left out: '{name}' .* has 8,589,934,592 bytes"):
        assert load_tokenizer(tmp_path / "own", required=False) is None
    with pytest.raises(CheckpointError, match="8,589,934,592 bytes"):
        load_tokenizer(tmp_path / "own", required=True)


def test_a_processor_of_gigabytes_is_not_read(tmp_path):
    with (tmp_path / "preprocessor_config.json").open("wb") as file:
        file.truncate(1 << 33)
    with pytest.raises(CheckpointError, match="'preprocessor_config.json' .* has 8,589,934,592 bytes"):
        load_processor(None, tmp_path)


def test_a_damaged_tokenizer_is_named_and_not_said_to_be_missing(tmp_path):
    save_with_tokenizer(tiny("llama"), tmp_path / "own", "some text that a tokenizer learns from")
    (tmp_path / "own" / "tokenizer.json").write_text("{")
    with pytest.warns(UserWarning, match="the tokenizer in .* cannot be loaded, and is left out: "):
        assert load_tokenizer(tmp_path / "own", required=False) is None
