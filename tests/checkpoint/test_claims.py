"""A config is only a claim: what its weights cannot fill is refused before anything is built, and in no time."""

import json
import os
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.models import tiny

from optimum_si import CheckpointError
from optimum_si.checkpoint.load import load_model


@pytest.fixture
def checkpoint(tmp_path):
    tiny("llama").save_pretrained(tmp_path)
    return tmp_path


def change(file, **values):
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize(
    "values",
    [
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": 10**5},
        {"num_hidden_layers": 10**30},
        {"num_hidden_layers": 300, "layer_types": None},
        {"text_config": {"num_hidden_layers": 10**9}},
        {"num_local_experts": 10**9},
        {"decoder_layers": 10**6},
        {"depths": [2, 10**8]},
    ],
    ids=str,
)
def test_more_layers_than_weights_are_refused_by_name(checkpoint, values):
    change(checkpoint / "config.json", **values)
    started = time.perf_counter()
    with pytest.raises(CheckpointError, match=f"{next(iter(values))}.*cannot fill"):
        load_model(checkpoint)
    assert time.perf_counter() - started < 30


@pytest.mark.parametrize("values", [{"intermediate_size": 10**9}, {"vocab_size": 10**12}, {"hidden_size": 2**40}])
def test_larger_layers_than_weights_are_refused(checkpoint, values):
    change(checkpoint / "config.json", **values)
    with pytest.raises(CheckpointError):
        load_model(checkpoint)


@pytest.mark.parametrize(
    "content",
    [b"[" * 200_000, b"[1, 2]", b"\xff\xfe", b'{"num_hidden_layers": ' + b"9" * 5000 + b"}", b"", b"{" * 70_000],
    ids=["deep", "list", "bytes", "digits", "empty", "open"],
)
def test_a_config_that_is_no_config_is_one_line(checkpoint, content):
    (checkpoint / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match="config.json") as raised:
        load_model(checkpoint)
    assert "\n" not in str(raised.value)


def test_a_pipe_is_not_waited_for(checkpoint):
    (checkpoint / "config.json").unlink()
    os.mkfifo(checkpoint / "config.json")
    with pytest.raises(CheckpointError):
        load_model(checkpoint)


def test_a_checkpoint_that_lacks_weights_is_not_filled_with_random_ones(checkpoint):
    weights = load_file(checkpoint / "model.safetensors")
    gone = "model.layers.1.mlp.up_proj.weight"
    del weights[gone]
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=f"lacks 1 weights.*{gone}.*random"):
        load_model(checkpoint)


def test_weights_of_another_shape_are_named(checkpoint):
    weights = load_file(checkpoint / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    weights[name] = weights[name][:-1].clone()
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="up_proj"):
        load_model(checkpoint)


def test_weights_left_over_are_named(checkpoint):
    weights = {**load_file(checkpoint / "model.safetensors"), "model.layers.9.extra.weight": torch.ones(2)}
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    with pytest.warns(UserWarning, match="1 weights that its architecture has no place for: model.layers.9.extra"):
        load_model(checkpoint)


@pytest.mark.parametrize("length", [2**62, 10**6, 3])
def test_a_header_that_reaches_beyond_the_file_is_refused(checkpoint, length):
    content = (checkpoint / "model.safetensors").read_bytes()
    (checkpoint / "model.safetensors").write_bytes(length.to_bytes(8, "little") + content[8:])
    with pytest.raises(CheckpointError, match="safetensors"):
        load_model(checkpoint)


@pytest.mark.parametrize("shard", ["../secret.safetensors", "/etc/passwd", "missing.safetensors", 3])
def test_an_index_that_leads_elsewhere_is_refused(checkpoint, shard):
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(CheckpointError, match="outside|lacks|weight_map"):
        load_model(checkpoint)


@pytest.mark.parametrize("name", ["llama", "opt", "bert", "gpt2", "t5", "vit", "llama-tied-biased"])
def test_whole_checkpoints_are_loaded_without_a_word(tmp_path, recwarn, name):
    tiny(name).save_pretrained(tmp_path)
    load_model(tmp_path)
    assert not [warning for warning in recwarn if "weights" in str(warning.message)]


@pytest.mark.parametrize("labels", [30_000_000, 10**12])
def test_more_classes_than_anybody_has_are_refused(checkpoint, labels):
    change(checkpoint / "config.json", num_labels=labels)
    with pytest.raises(CheckpointError, match="num_labels"):
        load_model(checkpoint)


def test_an_adapter_that_names_modules_by_a_pattern_is_refused(checkpoint):
    (checkpoint / "adapter_config.json").write_text(json.dumps({"target_modules": "(([a-z_.0-9]+)+)+!"}))
    with pytest.raises(CheckpointError, match="a regular expression: list names of modules"):
        load_model(checkpoint)
