"""A config alone builds no endless model: not for `inspect`, and not before a checkpoint is loaded."""

import json
import time

import pytest
from support.models import tiny

from optimum_si import CheckpointError
from optimum_si.checkpoint.load import load_model
from optimum_si.pipeline.inspect import inspect


ENDLESS = {
    "layers in a list of lists": {"model_type": "gpt_neo", "attention_types": [[["global"], 10**9]]},
    "blocks by another name": {"model_type": "funnel", "architectures": ["FunnelModel"], "block_sizes": [10**9]},
    "networks in a layer": {"model_type": "mobilebert", "num_feedforward_networks": 10**9},
    "experts in every layer": {
        "model_type": "mixtral",
        "architectures": ["MixtralForCausalLM"],
        "num_local_experts": 4000,
        "num_hidden_layers": 100,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("how", ENDLESS)
def test_what_no_weights_could_fill_ends_in_a_line(tmp_path, how):
    (tmp_path / "config.json").write_text(json.dumps(ENDLESS[how]))
    started = time.monotonic()
    with pytest.raises(CheckpointError, match="cannot fill that many|more than (32,768|262,144) modules") as raised:
        inspect(str(tmp_path))
    assert "\n" not in str(raised.value) and time.monotonic() - started < 300  # not for ever


def test_a_few_more_modules_than_weights_can_fill_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("optimum_si.checkpoint.building._MODULES", 30)
    tiny("llama").save_pretrained(tmp_path)
    for run in (load_model, inspect):
        with pytest.raises(CheckpointError, match="more than 30 modules in config.json, and its weights have"):
            run(str(tmp_path))
    monkeypatch.undo()
    assert load_model(tmp_path) is not None and inspect(str(tmp_path)).architecture == "LlamaForCausalLM"


def test_a_vector_of_any_length_is_not_computed_with(tmp_path):
    values = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 10**9, "vocab_size": 1}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 1, "intermediate_size": 1}
    (tmp_path / "config.json").write_text(json.dumps({**values, **heads, "num_hidden_layers": 1}))
    with pytest.raises(CheckpointError, match="describes a .* of 1,000,000,000 values in config.json"):
        inspect(str(tmp_path))


def test_of_a_repository_no_weights_are_downloaded(tmp_path, local_hub):
    tiny("llama").save_pretrained(tmp_path)
    local_hub.repositories["org/model"] = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert inspect("org/model").inventory.pruned > 0
    assert not any(".safetensors" in request for request in local_hub.requests)
    content = json.loads(local_hub.repositories["org/model"]["config.json"])
    local_hub.repositories["org/other"] = {
        **local_hub.repositories["org/model"],
        "config.json": json.dumps({**content, "num_hidden_layers": 10**9}).encode(),
    }
    with pytest.raises(CheckpointError, match="num_hidden_layers=1,000,000,000"):
        inspect("org/other")
