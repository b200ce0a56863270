"""Recovery as the last phase of a run, and by itself on a checkpoint."""

import warnings

import pytest
import torch
from support.models import block_weights, calibration, induce, prune, same_bytes, save_with_tokenizer, tiny

from optimum_si import (
    CalibrationError,
    ConfigurationError,
    RecoveryConfig,
    Report,
    SIConfig,
    SIPruner,
    UnsupportedModelError,
)
from optimum_si.algorithms.recovery.memory import Level, MemoryPlan
from optimum_si.algorithms.recovery.state import Saved
from optimum_si.pipeline import interruptions


TEXTS = [" ".join(f"d{document}w{word}" for word in range(60)) for document in range(120)]
RECIPE = {"pattern": "2:4", "induction": None}
RECOVERY = {"epochs": 2, "learning_rate": 1e-3, "num_samples": 0}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A dense checkpoint and its pruned one, and the text that it was calibrated on."""
    folder = tmp_path_factory.mktemp("recovery")
    save_with_tokenizer(tiny("llama"), folder / "dense", " ".join(TEXTS))
    (folder / "text.txt").write_text("\n\n".join(TEXTS), encoding="utf-8")
    config = SIConfig(
        "wanda", calibration={"num_samples": 4, "sequence_length": 32, "dataset": str(folder / "text.txt")}, **RECIPE
    )
    SIPruner.from_pretrained(folder / "dense").prune(config, save_dir=folder / "pruned", progress=False)
    return folder


def recover(places, source="pruned", **options):
    pruner = SIPruner.from_pretrained(places / source)
    options = {"config": {**RECOVERY, "num_samples": 8}, "dense": places / "dense", "progress": False, **options}
    pruner.recover(**options)
    return pruner


@pytest.mark.parametrize("name", ["llama", "opt", "bert", "vit"])
def test_a_run_ends_in_a_recovery_and_reports_it(name):
    data = calibration(name)
    plain = prune(tiny(name), data=data, **RECIPE)
    pruner = prune(tiny(name), data=data, recovery=RECOVERY, **RECIPE)
    found = pruner.report.recovery
    assert found.loss_after < found.loss_before and found.windows == 16 and found.epochs == 2
    assert Report.from_dict(pruner.report.to_dict()) == pruner.report
    for weight, before in zip(block_weights(pruner.model).values(), block_weights(plain.model).values(), strict=True):
        assert torch.equal(weight == 0, before == 0)
    assert not same_bytes(plain.model, pruner.model) and plain.report.recovery is None
    assert any("recovery of 2 epochs" in step for step in pruner.report.steps)


def test_induce_recovers_nothing():
    assert same_bytes(induce(tiny("opt"), recovery=RECOVERY).model, induce(tiny("opt")).model)


def test_transformations_come_before_the_dense_answers():
    recipe = {**RECIPE, "transformations": ["residual", "permutation"]}
    pruner = prune(tiny("llama"), data=calibration(""), recovery=RECOVERY, **recipe)
    found = pruner.report.recovery
    assert found.loss_after < found.loss_before < 1


def test_weights_on_a_grid_stay_there():
    recipe = {**RECIPE, "quantization": "int8"}
    plain = prune(tiny("llama"), data=calibration(""), **recipe)
    pruner = prune(tiny("llama"), data=calibration(""), recovery=RECOVERY, **recipe)
    assert pruner.report.recovery.trains == "norms" and not same_bytes(plain.model, pruner.model)
    for weight, before in zip(block_weights(pruner.model).values(), block_weights(plain.model).values(), strict=True):
        assert torch.equal(weight, before)


def test_one_window_is_too_few_and_changes_nothing():
    model = tiny("llama")
    with pytest.raises(CalibrationError, match=r"recovery got 1 window\(s\).*give more text"):
        prune(model, data=calibration("", 1), recovery=RECOVERY, **RECIPE)
    assert same_bytes(model, tiny("llama"))


def test_a_checkpoint_recovers_by_itself_and_says_so(places, tmp_path):
    pruner = recover(places, save_dir=tmp_path / "out")
    found = pruner.report.recovery
    assert found.loss_after < found.loss_before and found.windows == 8
    again = SIPruner.from_pretrained(tmp_path / "out")
    assert same_bytes(again.model, pruner.model)
    assert Report.load(tmp_path / "out").recovery == found
    before = block_weights(SIPruner.from_pretrained(places / "pruned").model)
    assert all(torch.equal(weight == 0, before[name] == 0) for name, weight in block_weights(again.model).items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_checkpoint_recovers_on_text_that_its_dense_model_writes(places, tmp_path):
    runs = [recover(places, dataset="self", save_dir=tmp_path / name) for name in ("first", "again")]
    found = runs[0].report.recovery
    assert found.loss_after < found.loss_before and found.windows == 8
    assert same_bytes(*(run.model for run in runs)) and not same_bytes(runs[0].model, recover(places).model)


def test_a_second_call_with_the_same_arguments_says_that_it_is_done(places, tmp_path):
    recover(places, save_dir=tmp_path / "out")
    first = SIPruner.from_pretrained(tmp_path / "out").model
    pruner = SIPruner.from_pretrained(tmp_path / "out")
    options = {"config": {**RECOVERY, "num_samples": 8}, "dense": places / "dense", "progress": False}
    with pytest.warns(UserWarning, match="this recovery is done already"):
        pruner.recover(**options, save_dir=tmp_path / "out", overwrite=True)
    assert same_bytes(pruner.model, first)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="this recovery is done")
        pruner.recover(**{**options, "config": {**RECOVERY, "num_samples": 5}})
    assert pruner.report.recovery.windows == 5


def test_an_interrupted_call_goes_on_when_it_is_repeated(places, tmp_path, monkeypatch):
    expected = recover(places)
    monkeypatch.setattr(interruptions.Interruptions, "save", _stopping_after(3))
    with pytest.raises(KeyboardInterrupt):
        recover(places, save_dir=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == [".out.recovery"]
    loaded = []
    load = interruptions.Interruptions.load
    monkeypatch.setattr(interruptions.Interruptions, "load", lambda self: loaded.append(load(self)) or loaded[-1])
    monkeypatch.setattr(interruptions.Interruptions, "save", lambda self, make: None)
    pruner = recover(places, save_dir=tmp_path / "out")
    assert loaded[0].phase["step"] == 3
    assert same_bytes(pruner.model, expected.model)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def _stopping_after(steps):
    store = interruptions.Interruptions.save

    def save(self, make):
        nonlocal steps
        steps -= 1
        if steps == 0:
            self.every = 0.0
            store(self, make)
            raise KeyboardInterrupt

    return save


def test_another_call_does_not_go_on_from_there(tmp_path):
    kept = interruptions.Interruptions(tmp_path / "out", "a run", every=0.0)
    kept.save(lambda: Saved(MemoryPlan(Level.ADAM, 0, [range(2)]), seconds=5.0))
    assert kept.load().seconds == 5.0
    assert interruptions.Interruptions(tmp_path / "out", "another run").load() is None


def test_in_memory_models_recover_too():
    pruner = prune(tiny("bert"), data=calibration(""), **RECIPE)
    pruner.recover(RECOVERY, calibration(""), dense=tiny("bert"), progress=False)
    assert pruner.report.recovery.loss_after < pruner.report.recovery.loss_before


def test_a_rotated_model_recovers_towards_the_dense_one_in_its_own_basis():
    recipe = {**RECIPE, "transformations": ["residual"]}
    pruner = prune(tiny("llama"), data=calibration(""), **recipe)
    in_the_run = prune(tiny("llama"), data=calibration(""), recovery=RECOVERY, **recipe).report.recovery
    pruner.recover(RECOVERY, calibration(""), dense=tiny("llama"), progress=False)
    alone = pruner.report.recovery
    assert alone.loss_before == pytest.approx(in_the_run.loss_before, rel=0.02)
    with pytest.raises(ConfigurationError, match="recovery.hidden_weight compares last hidden states"):
        pruner.recover({**RECOVERY, "hidden_weight": 1.0}, calibration(""), dense=tiny("llama"), progress=False)


@pytest.mark.parametrize("dense, message", [
    (None, "needs the dense model, and the report names 'dense', no Hub id: give its place as dense"),
    ("opt", r"another architecture \(OPTForCausalLM\) than the pruned model \(LlamaForCausalLM\)"),
    ("vocabulary", r"another number of tokens \(99\) than"),
], ids=str)  # fmt: skip
def test_the_wrong_dense_model_is_refused(places, dense, message):
    if dense == "vocabulary":
        dense = tiny("llama")
        dense.resize_token_embeddings(99)
    elif dense is not None:
        dense = tiny(dense)
    with pytest.raises(ConfigurationError, match=message):
        recover(places, dense=dense)


def test_the_pruned_model_is_not_its_own_dense_model(places):
    pruner = SIPruner.from_pretrained(places / "pruned")
    with pytest.raises(ConfigurationError, match="dense is the pruned model itself"):
        pruner.recover(dense=pruner.model, progress=False)


def test_a_model_without_zeros_is_refused(places):
    with pytest.raises(UnsupportedModelError, match="0 zeros in .* weights, so nothing was pruned"):
        recover(places, "dense", dataset=TEXTS)


def test_text_that_is_too_short_is_refused(places):
    with pytest.raises(CalibrationError, match="tokens and one window needs 32"):
        recover(places, dataset=["d1w1"])


@pytest.mark.parametrize("config", [3, "weights", False])
def test_a_config_of_another_kind_is_refused(places, config):
    with pytest.raises(ConfigurationError):
        recover(places, config=config)


def test_minutes_take_the_place_of_the_configs(places):
    pruner = recover(places, config=RecoveryConfig(epochs=500, num_samples=8), minutes=1e-4)
    assert pruner.report.recovery.ended == "time"
