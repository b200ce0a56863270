"""``SIPruner`` end to end on tiny models of every family."""

import errno
import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import transformers
from tiny_models import DECLARED, UNDECLARED, outputs, tiny, token_windows
from transformers import AutoModel, AutoModelForCausalLM, LlamaForCausalLM

from optimum_si import CheckpointError, ConfigurationError, NumericalError, Report, SIConfig, SIPruner
from optimum_si.errors import CalibrationError, UnsupportedModelError
from optimum_si.models.blocks import find_structure


QUICK = {"epochs": 1}
METHODS = ("magnitude", "wanda", "sparsegpt")


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def pruned(model, method="wanda", windows=None, save_dir=None, **kwargs):
    kwargs.setdefault("induction", QUICK)
    pruner = SIPruner(model)
    data = token_windows() if windows is None else windows
    pruner.prune(SIConfig(method, **kwargs), data, save_dir=save_dir, progress=False)
    return pruner


def weights_of(model):
    return {view.name: view.read() for block in find_structure(model).blocks for view in block.views.values()}


def same(first, second):
    return all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", [*DECLARED, *UNDECLARED])
def test_sparsity_is_exact_and_patterns_hold_in_every_group(name, method):
    for induction in (None, QUICK):
        model = pruned(tiny(name), method, pattern="2:4", induction=induction).model
        for weight in weights_of(model).values():
            assert ((weight.reshape(-1, 4) != 0).sum(dim=1) == 2).all()
        model = pruned(tiny(name), method, sparsity=0.6, induction=induction).model
        for weight in weights_of(model).values():
            assert abs(int((weight == 0).sum()) - 0.6 * weight.numel()) <= len(weight)


def test_plain_methods_leave_everything_else_alone():
    before, after = tiny("llama"), pruned(tiny("llama"), "magnitude", sparsity=0.5, induction=None).model
    blocks = set(weights_of(before))
    for name, value in before.state_dict().items():
        changed = not torch.equal(value, after.state_dict()[name])
        assert changed == (name.removesuffix(".weight") in blocks)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_bytes(method):
    assert same(pruned(tiny("opt"), method).model, pruned(tiny("opt"), method).model)


@pytest.mark.parametrize("name", [*DECLARED, *UNDECLARED])
def test_induction_alone_keeps_the_function(name):
    windows, before = token_windows(), outputs(tiny(name), token_windows())
    model = SIPruner(tiny(name)).induce(
        SIConfig("wanda", induction={"epochs": 2, "learning_rate": 0.3}), windows, progress=False
    )
    assert float((outputs(model, windows) - before).norm() / before.norm()) <= 1e-5
    assert model.config.sparsity_config["pruned"] is False


def test_induction_moves_weights_without_moving_a_bf16_bit():
    windows = token_windows()
    before = tiny("llama", torch.bfloat16)
    config = SIConfig("wanda", induction={"epochs": 3, "learning_rate": 0.5})
    after = SIPruner(tiny("llama", torch.bfloat16)).induce(config, windows, progress=False)
    assert torch.equal(outputs(before, windows), outputs(after, windows))
    assert not same(before, after)


@pytest.mark.parametrize("method", METHODS)
def test_prune_of_an_induced_checkpoint_equals_prune(tmp_path, method):
    config = SIConfig(method, pattern="2:4", induction={"epochs": 2, "learning_rate": 0.2})
    direct = SIPruner(tiny("opt")).prune(config, token_windows(), progress=False)
    inducer = SIPruner(tiny("opt"))
    inducer.induce(config, token_windows(), save_dir=tmp_path / "induced", progress=False)
    assert (tmp_path / "induced" / "si_scales.safetensors").is_file()
    again = SIPruner.from_pretrained(tmp_path / "induced").prune(config, token_windows(), progress=False)
    assert same(direct, again)


def test_held_out_loss_never_rises():
    for method in METHODS:
        for block in pruned(tiny("opt"), method, pattern="2:4", induction={"epochs": 2}).report.blocks:
            assert block.loss_after <= block.loss_before


def test_padding_changes_nothing():
    windows = token_windows(8, 12)
    plain = [{"input_ids": row} for row in windows]
    padded = [
        {"input_ids": torch.cat([row, torch.zeros(5, dtype=torch.long)]), "attention_mask": torch.arange(17) < 12}
        for row in windows
    ]
    padded = [{**row, "attention_mask": row["attention_mask"].long()} for row in padded]
    for method in ("wanda", "sparsegpt"):
        first = pruned(tiny("llama"), method, plain, induction=None).model
        second = pruned(tiny("llama"), method, padded, induction=None).model
        for name, weight in weights_of(first).items():
            torch.testing.assert_close(weights_of(second)[name], weight, rtol=1e-3, atol=1e-3)


def test_batch_size_changes_nothing():
    found = [
        pruned(tiny("llama"), "wanda", induction=None, calibration={"batch_size": size}).model for size in (1, 3, 16)
    ]
    assert same(found[0], found[1]) and same(found[0], found[2])


@pytest.mark.parametrize("name", ["llama", "opt", "bert", "gpt2"])
def test_stock_transformers_loads_what_was_saved(tmp_path, name):
    pruner = pruned(tiny(name), "wanda", save_dir=tmp_path / "out", pattern="2:4")
    loader = AutoModel if name == "bert" else AutoModelForCausalLM
    loaded = loader.from_pretrained(tmp_path / "out")
    assert torch.equal(outputs(loaded, token_windows()), outputs(pruner.model, token_windows()))
    assert loaded.config.sparsity_config["pattern"] == "2:4"
    assert loaded.config.sparsity_config["measured_sparsity"] == 0.5
    assert SIConfig.from_pretrained(tmp_path / "out") == pruner.config
    assert Report.load(tmp_path / "out") == pruner.report
    assert type(SIPruner.from_pretrained(tmp_path / "out").model) is type(pruner.model)


def test_shards_and_the_models_own_save_carry_the_zeros(tmp_path):
    pruner = pruned(tiny("llama"), "sparsegpt")
    pruner.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    pruner.model.save_pretrained(tmp_path / "own")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    for directory in ("sharded", "own"):
        loaded = LlamaForCausalLM.from_pretrained(tmp_path / directory)
        assert same(pruner.model, loaded) and loaded.config.sparsity_config["method"] == "sparsegpt"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", METHODS)
def test_half_precision_models_are_pruned_in_their_dtype(method, dtype):
    model = pruned(tiny("llama", dtype), method, pattern="2:4").model
    for weight in weights_of(model).values():
        assert weight.dtype == dtype and ((weight.reshape(-1, 4) != 0).sum(dim=1) <= 2).all()


def test_a_sparse_model_keeps_its_zeros():
    model = pruned(tiny("llama"), "wanda", sparsity=0.3, induction=None).model
    zeros = {name: weight == 0 for name, weight in weights_of(model).items()}
    again = pruned(model, "sparsegpt", sparsity=0.5).model
    for name, weight in weights_of(again).items():
        assert (weight[zeros[name]] == 0).all() and abs(float((weight == 0).double().mean()) - 0.5) < 0.02


def test_include_and_exclude_choose_layers():
    report = pruned(tiny("llama"), include="*.mlp.*", exclude=["*.0.mlp.up_proj"]).report
    assert {layer.name.split(".", 2)[2] for layer in report.layers} == {
        "0.mlp.gate_proj", "0.mlp.down_proj", "1.mlp.gate_proj", "1.mlp.up_proj", "1.mlp.down_proj"
    }  # fmt: skip
    assert "model.layers.0.mlp.up_proj" in report.dense


def test_new_biases_load_in_stock_transformers(tmp_path):
    induction = {"epochs": 1, "new_biases": True}
    pruner = pruned(tiny("llama"), "wanda", save_dir=tmp_path / "out", induction=induction)
    loaded = LlamaForCausalLM.from_pretrained(tmp_path / "out")
    assert loaded.config.attention_bias and loaded.config.mlp_bias
    assert float(loaded.model.layers[0].mlp.down_proj.bias.abs().max()) > 0
    assert torch.equal(outputs(loaded, token_windows()), outputs(pruner.model, token_windows()))


BASE = {"epochs": 3, "learning_rate": 0.02, "initialisation": "ones"}
SPECTRAL = {**BASE, "spectral_weight": 5.0}
CHANGES = [
    (BASE, {"epochs": 6}),
    (BASE, {"learning_rate": 0.1}),
    (BASE, {"initialisation": "activation"}),
    (BASE, {"initialisation": "robust"}),
    (BASE, {"objective": "mse"}),
    (BASE, {"own_scales": False}),
    (BASE, {"max_scale": 1.05}),
    (BASE, {"temperature": 0.3}),
    (BASE, {"shift": False}),
    (BASE, {"validation_fraction": 0.5}),
    (BASE, {"spectral_weight": 5.0}),
    (SPECTRAL, {"spectral_p": 1}),
    (SPECTRAL, {"spectral_p": 2}),
    (SPECTRAL, {"spectral_alpha": 0.01}),
    (SPECTRAL, {"spectral_normalised": True}),
]


def induced_opt(induction):
    return pruned(tiny("opt"), "magnitude", token_windows(48), sparsity=0.5, induction=induction)


@pytest.mark.parametrize(("base", "change"), CHANGES, ids=lambda value: str(value) if len(value) == 1 else "base")
def test_no_induction_option_does_nothing(base, change):
    assert not same(induced_opt(base).model, induced_opt({**base, **change}).model)


def test_the_automatic_start_is_one_of_the_two():
    def first_loss(name):
        return induced_opt({**BASE, "initialisation": name}).report.blocks[0].loss_after

    assert first_loss("auto") in (first_loss("ones"), first_loss("activation"))


def test_without_absorption_induction_leaves_the_weights():
    config = SIConfig("wanda", induction={"epochs": 3, "learning_rate": 0.5, "absorb": False})
    pruner = SIPruner(tiny("llama"))
    assert same(pruner.induce(config, token_windows(), progress=False), tiny("llama"))
    assert any(layer.scale_max > 1.01 for layer in pruner.report.layers if layer.scale_max is not None)


@pytest.mark.parametrize(
    "change", [{"damping": 0.5}, {"damping_mode": "channel", "damping": 0.3}, {"block_size": 8}], ids=str
)
def test_no_sparsegpt_option_does_nothing(change):
    plain = pruned(tiny("llama"), "sparsegpt", induction=None).model
    assert not same(plain, pruned(tiny("llama"), "sparsegpt", induction=None, **change).model)


def test_the_comparison_group_matters():
    row = pruned(tiny("llama"), "magnitude", induction=None, comparison_group="row").model
    assert not same(row, pruned(tiny("llama"), "magnitude", induction=None).model)
    assert all(((weight == 0).sum(dim=1) == weight.shape[1] // 2).all() for weight in weights_of(row).values())


def raises(error, match, call):
    with pytest.raises(error, match=match):
        call()


def test_errors_name_the_cause_and_the_fix(tmp_path):
    model = tiny("llama")
    model.model.layers[1].mlp.up_proj.weight.data[0, 0] = float("nan")
    raises(NumericalError, "layers.1.mlp.up_proj", lambda: pruned(model))
    model = tiny("llama")
    model.model.embed_tokens.weight.data[5] = float("inf")
    windows = torch.full((8, 8), 5)
    raises(NumericalError, "NaN or infinity", lambda: pruned(model, windows=windows))
    raises(
        ConfigurationError,
        "multiple of 5.*model.layers.0.self_attn.q_proj",
        lambda: pruned(tiny("llama"), pattern="2:5"),
    )
    raises(ConfigurationError, "matches none", lambda: pruned(tiny("llama"), include="*.nothing"))
    raises(CalibrationError, "tokenizer", lambda: pruned(tiny("llama"), windows=["some text"]))
    raises(UnsupportedModelError, "PreTrainedModel", lambda: SIPruner(torch.nn.Linear(2, 2)))
    raises(CheckpointError, "nowhere", lambda: SIPruner.from_pretrained(tmp_path / "nowhere"))
    raises(ConfigurationError, "nothing to do", lambda: SIPruner(tiny("llama")).induce(SIConfig(induction=None), None))


def test_quantised_weights_and_foreign_code_are_refused(tmp_path):
    tiny("llama").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "quantization_config": {"quant_method": "gptq", "bits": 4}}))
    raises(UnsupportedModelError, "gptq", lambda: SIPruner.from_pretrained(tmp_path))
    foreign = {
        "model_type": "foreign",
        "architectures": ["ForeignModel"],
        "auto_map": {"AutoConfig": "code.ForeignConfig"},
    }
    path.write_text(json.dumps({**config, **foreign}))
    raises(UnsupportedModelError, "trust_remote_code", lambda: SIPruner.from_pretrained(tmp_path))


def test_a_model_without_blocks_names_what_was_seen():
    config = transformers.LlamaConfig(hidden_size=8, num_attention_heads=2)

    class Flat(transformers.PreTrainedModel):
        config_class = transformers.LlamaConfig

        def __init__(self):
            super().__init__(config)
            self.only_layer = torch.nn.Linear(8, 8)

    raises(UnsupportedModelError, "only_layer", lambda: pruned(Flat()))


def test_an_output_that_is_not_empty_is_kept(tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    raises(CheckpointError, "overwrite", lambda: pruned(tiny("llama"), save_dir=tmp_path))
    assert (tmp_path / "note.txt").read_text() == "mine"


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    pruner = pruned(tiny("llama"), save_dir=tmp_path / "out")
    before = sorted((file.name, file.read_bytes()) for file in (tmp_path / "out").iterdir())

    def full(directory, **kwargs):
        (Path(directory) / "model.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pruner.model, "save_pretrained", full)
    raises(CheckpointError, "disk is full", lambda: pruner.save_pretrained(tmp_path / "out", overwrite=True))
    assert sorted((file.name, file.read_bytes()) for file in (tmp_path / "out").iterdir()) == before
    assert os.listdir(tmp_path) == ["out"]


def test_a_kill_while_saving_leaves_what_was_there(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("old")
    script = (
        "import os, signal, sys\nfrom optimum_si.saving import replaced_directory\n"
        "with replaced_directory(sys.argv[1], overwrite=True) as directory:\n"
        "    (directory / 'config.json').write_text('new')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    finished = subprocess.run([sys.executable, "-c", script, str(tmp_path / "out")])
    assert finished.returncode == -signal.SIGKILL
    assert (tmp_path / "out" / "config.json").read_text() == "old"


def test_damaged_side_files_are_named(tmp_path):
    config = SIConfig("wanda", induction=QUICK)
    SIPruner(tiny("llama")).induce(config, token_windows(), save_dir=tmp_path / "out", progress=False)
    (tmp_path / "out" / "si_scales.safetensors").write_bytes(b"broken")
    raises(CheckpointError, "si_scales", lambda: SIPruner.from_pretrained(tmp_path / "out"))
    (tmp_path / "out" / "si_report.json").write_text("{}")
    raises(CheckpointError, "si_report", lambda: Report.load(tmp_path / "out"))
