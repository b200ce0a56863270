"""What is saved is an ordinary checkpoint, whole or not at all."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from support.models import (
    FAMILIES,
    METHODS,
    block_weights,
    induce,
    inputs_of,
    logits,
    prune,
    same_bytes,
    tiny,
    token_windows,
)
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
)

from optimum_si import CheckpointError, Report, SIConfig, SIPruner
from optimum_si.checkpoint.save import replaced_directory


AUTO = {
    "bert": AutoModelForMaskedLM,
    "bert-relu": AutoModelForMaskedLM,
    "t5": AutoModelForSeq2SeqLM,
    "vit": AutoModelForImageClassification,
}
STRONG = {"epochs": 2, "learning_rate": 0.02}


def contents(directory):
    return {str(file.relative_to(directory)): file.read_bytes() for file in directory.rglob("*") if file.is_file()}


@pytest.mark.parametrize("shards", [{}, {"max_shard_size": "20KB"}], ids=["whole", "sharded"])
@pytest.mark.parametrize("name", FAMILIES)
def test_stock_transformers_loads_what_was_saved(tmp_path, name, shards):
    pruner = prune(tiny(name), pattern="2:4")
    pruner.save_pretrained(tmp_path / "out", **shards)
    assert (len(list((tmp_path / "out").glob("*.safetensors"))) > 1) == bool(shards)
    loaded = AUTO.get(name, AutoModelForCausalLM).from_pretrained(tmp_path / "out")
    assert type(loaded) is type(pruner.model) and same_bytes(loaded, pruner.model)
    assert torch.equal(logits(loaded, inputs_of(name, 2)), logits(pruner.model, inputs_of(name, 2)))
    for weight in block_weights(loaded).values():
        assert ((weight.reshape(-1, 4) != 0).sum(dim=1) == 2).all()


@pytest.mark.parametrize("name", ["llama-tied-biased", "bert"])
def test_the_saved_class_is_loaded_again(tmp_path, name):
    pruner = prune(tiny(name), save_dir=tmp_path / "out")
    again = SIPruner.from_pretrained(tmp_path / "out")
    assert type(again.model) is type(pruner.model) and same_bytes(again.model, pruner.model)
    assert again.scales is None


def test_the_config_records_what_was_done(tmp_path):
    recipe = {"pattern": "2:4", "exclude": "*.0.mlp.*", "induction": {"epochs": 1}}
    pruner = prune(tiny("llama"), "wanda", save_dir=tmp_path / "out", **recipe)
    record = AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.sparsity_config
    assert record == pruner.model.config.sparsity_config
    expected = {"method": "wanda", "pattern": "2:4", "sparsity": 0.5, "measured_sparsity": 0.5, "induction": True}
    assert {name: record[name] for name in expected} == expected
    assert record["pruned"] is True and record["exclude"] == ["*.0.mlp.*"]
    assert not hasattr(pruner.model.config, "quantization_config")


def test_the_recipe_and_the_report_lie_beside_the_weights(tmp_path):
    pruner = prune(tiny("llama"), save_dir=tmp_path / "out")
    assert SIConfig.from_pretrained(tmp_path / "out") == pruner.config
    assert Report.load(tmp_path / "out") == pruner.report
    assert not (tmp_path / "out" / "si_scales.safetensors").exists()


def test_the_models_own_save_carries_the_zeros(tmp_path):
    pruner = prune(tiny("llama"), "sparsegpt")
    pruner.model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert same_bytes(loaded, pruner.model) and loaded.config.sparsity_config["method"] == "sparsegpt"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_saved_as_it_is(tmp_path, dtype):
    pruner = prune(tiny("llama", dtype), "sparsegpt", save_dir=tmp_path / "out", pattern="2:4")
    loaded = SIPruner.from_pretrained(tmp_path / "out").model
    assert loaded.dtype == dtype and same_bytes(loaded, pruner.model)


HALVES = (torch.bfloat16, torch.float16)


@pytest.mark.parametrize(
    "dtype", [torch.float32, *(pytest.param(one, marks=pytest.mark.slow) for one in HALVES)], ids=str
)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["qwen2", "opt"])
def test_pruning_an_induced_checkpoint_equals_pruning(tmp_path, name, method, dtype):
    recipe = {"pattern": "2:4", "induction": STRONG}
    direct = prune(tiny(name, dtype), method, **recipe)
    induce(tiny(name, dtype), method, save_dir=tmp_path / "induced", **recipe)
    assert (tmp_path / "induced" / "si_scales.safetensors").is_file()
    again = prune(str(tmp_path / "induced"), method, **recipe)
    assert same_bytes(direct.model, again.model)
    assert again.model.config.sparsity_config == direct.model.config.sparsity_config


def test_tiny_half_precision_weights_survive_inducing_and_pruning(tmp_path):
    recipe = {"method": "magnitude", "pattern": "2:4", "induction": STRONG}

    def with_tiny_weights():
        model = tiny("opt", torch.float16)
        for weight in block_weights(model).values():
            # Whole groups of four, so that small weights are kept.
            weight[:, ::8] *= 2e-4
            for column in (1, 2, 3):
                weight[:, column::8] *= 2e-4
        return model

    induce(with_tiny_weights(), save_dir=tmp_path / "induced", **recipe)
    again = prune(str(tmp_path / "induced"), **recipe)
    assert same_bytes(again.model, prune(with_tiny_weights(), **recipe).model)


def test_pruning_an_induced_checkpoint_with_new_biases_equals_pruning(tmp_path):
    recipe = {"pattern": "2:4", "induction": {**STRONG, "new_biases": True}}
    induce(tiny("llama"), save_dir=tmp_path / "induced", **recipe)
    again = prune(str(tmp_path / "induced"), **recipe)
    assert same_bytes(again.model, prune(tiny("llama"), **recipe).model)


def test_the_blocks_of_a_pruned_induced_checkpoint_keep_their_choice(tmp_path):
    recipe = {"pattern": "2:4", "induction": STRONG}
    induced = induce(tiny("opt"), save_dir=tmp_path / "induced", **recipe)
    again = prune(str(tmp_path / "induced"), **recipe)
    assert [block.choice for block in again.report.blocks] == [block.choice for block in induced.report.blocks]


def test_scales_of_another_method_are_learned_anew(tmp_path):
    induce(tiny("opt"), "magnitude", save_dir=tmp_path / "induced", induction=STRONG)
    with pytest.warns(UserWarning, match="learned anew"):
        again = prune(str(tmp_path / "induced"), "wanda", induction=STRONG)
    assert same_bytes(again.model, prune(tiny("opt"), "wanda", induction=STRONG).model)


def test_a_plain_recipe_prunes_an_induced_checkpoint_as_it_is(tmp_path):
    induced = induce(tiny("opt"), "magnitude", save_dir=tmp_path / "induced", induction=STRONG)
    weights = {name: weight.clone() for name, weight in block_weights(induced.model).items()}
    again = prune(str(tmp_path / "induced"), "magnitude", induction=None)
    for name, weight in block_weights(again.model).items():
        assert torch.equal(weight[weight != 0], weights[name][weight != 0])


def test_an_output_that_is_not_empty_is_kept(tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    pruner = SIPruner(tiny("llama"))
    with pytest.raises(CheckpointError, match="not empty.*overwrite=True"):
        pruner.prune(SIConfig(induction=None), token_windows(), save_dir=tmp_path, progress=False)
    assert contents(tmp_path) == {"note.txt": b"mine"}
    # Said before any work was done.
    assert pruner.report is None and same_bytes(pruner.model, tiny("llama"))


def test_overwriting_replaces_everything(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "note.txt").write_text("old")
    (tmp_path / "out" / "si_report.json").write_text("old")
    prune(tiny("llama"), induction=None).save_pretrained(tmp_path / "out", overwrite=True)
    assert "note.txt" not in contents(tmp_path / "out") and os.listdir(tmp_path) == ["out"]


def test_an_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="is a file"):
        SIPruner(tiny("llama")).check_output(tmp_path / "file", overwrite=True)


@pytest.mark.parametrize(("code", "error"), [(errno.ENOSPC, CheckpointError), (errno.EIO, OSError)])
def test_a_failure_while_writing_leaves_what_was_there(tmp_path, monkeypatch, code, error):
    pruner = prune(tiny("llama"), save_dir=tmp_path / "out", induction=None)
    before = contents(tmp_path / "out")

    def full(directory, **kwargs):
        (Path(directory) / "model.safetensors").write_bytes(b"half")
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(pruner.model, "save_pretrained", full)
    with pytest.raises(error, match="disk is full.*intact" if code == errno.ENOSPC else None):
        pruner.save_pretrained(tmp_path / "out", overwrite=True)
    assert contents(tmp_path / "out") == before and os.listdir(tmp_path) == ["out"]


def test_a_failure_leaves_no_new_directory(tmp_path):
    with pytest.raises(KeyboardInterrupt), replaced_directory(tmp_path / "out") as directory:
        (directory / "config.json").write_text("half")
        raise KeyboardInterrupt
    assert not os.listdir(tmp_path)


KILLED_WHILE_WRITING = """
import os, signal, sys
from optimum_si.checkpoint import work_folders
from optimum_si.checkpoint.outputs import check_output
from optimum_si.checkpoint.save import replaced_directory
with replaced_directory(sys.argv[1], overwrite=True) as directory:
    (directory / "config.json").write_text("new")
    os.kill(os.getpid(), signal.SIGKILL)
"""
KILLED_WHILE_MOVING = """
import os, signal, sys
from optimum_si.checkpoint import save
exchange = save._exchange
def once(first, second):
    assert exchange(first, second)
    os.kill(os.getpid(), signal.SIGKILL)
save._exchange = once
with save.replaced_directory(sys.argv[1], overwrite=True) as directory:
    (directory / "config.json").write_text("new")
"""


@pytest.mark.parametrize("script", [KILLED_WHILE_WRITING, KILLED_WHILE_MOVING], ids=["writing", "moving"])
def test_a_kill_leaves_a_whole_checkpoint(tmp_path, script):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("old")
    (tmp_path / "out" / "model.safetensors").write_text("old")
    finished = subprocess.run([sys.executable, "-c", script, str(tmp_path / "out")])
    assert finished.returncode == -signal.SIGKILL
    assert (tmp_path / "out" / "config.json").is_file()
    assert (tmp_path / "out" / "config.json").read_text() in ("old", "new")


def test_a_link_to_a_directory_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    with replaced_directory(tmp_path / "out", overwrite=True) as directory:
        (directory / "config.json").write_text("new")
    assert (tmp_path / "out").is_symlink() and (tmp_path / "real" / "config.json").read_text() == "new"


def test_systems_that_cannot_exchange_directories_rename_twice(tmp_path, monkeypatch):
    monkeypatch.setattr("optimum_si.checkpoint.save._exchange", lambda first, second: False)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("old")
    (tmp_path / "out" / "model.safetensors").write_text("old")
    with replaced_directory(tmp_path / "out", overwrite=True) as directory:
        (directory / "config.json").write_text("new")
    assert (tmp_path / "out" / "config.json").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_working_directory_is_not_replaced(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for output in (".", ".."):
        with pytest.raises(CheckpointError, match="working directory"), replaced_directory(output, overwrite=True):
            pass


def test_a_disk_that_fills_while_safetensors_writes_is_said_to_be_full(tmp_path, monkeypatch):
    pruner = prune(tiny("llama"), "magnitude", induction=None)

    def full(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(pruner.model, "save_pretrained", full)
    with pytest.raises(CheckpointError, match="disk is full"):
        pruner.save_pretrained(tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_pruned_model_is_pushed_to_the_hub(local_hub):
    model = prune(tiny("llama"), "wanda", pattern="2:4", induction=None).model
    model.push_to_hub("me/sparse", token="hf_fake")
    files = local_hub.repositories["me/sparse"]
    assert "model.safetensors" in files and b'"pattern": "2:4"' in files["config.json"]


@pytest.mark.parametrize("method", ["magnitude", "wanda"])
def test_scales_are_taken_up_by_a_model_that_transformers_loaded(tmp_path, method):
    recipe = {"pattern": "2:4", "induction": {"epochs": 2, "learning_rate": 0.05}}
    induce(tiny("opt"), method, save_dir=tmp_path / "induced", **recipe)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "induced")
    assert same_bytes(prune(loaded, method, **recipe).model, prune(tiny("opt"), method, **recipe).model)


def test_scales_learned_for_another_target_are_learned_anew_with_a_warning(tmp_path):
    induction = {"epochs": 2, "learning_rate": 0.05}
    induce(tiny("opt"), "wanda", save_dir=tmp_path / "induced", pattern="2:4", induction=induction)
    with pytest.warns(UserWarning, match="learned for wanda 2:4; for wanda 70% they are learned anew"):
        again = prune(str(tmp_path / "induced"), "wanda", sparsity=0.7, induction=induction)
    assert same_bytes(again.model, prune(tiny("opt"), "wanda", sparsity=0.7, induction=induction).model)
