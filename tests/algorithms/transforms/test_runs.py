"""``SIConfig(transformations=[...])`` in runs: the function stays, the option acts, records say what was done."""

import json
import warnings

import pytest
import torch
from support.models import (
    block_weights,
    calibration,
    induce,
    inputs_of,
    logits,
    prune,
    relative_change,
    same_bytes,
    tiny,
)
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from optimum_si import SIConfig, SIPruner
from optimum_si.algorithms.transforms import orthogonal
from optimum_si.config.choices import TRANSFORMATIONS
from optimum_si.report import Report


ALL = list(TRANSFORMATIONS)
#: A run that leaves every weight where transformations put it.
DENSE = {"sparsity": 0.0, "induction": None}


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    """A rotation need not be good here, only better than none: few and short steps."""
    monkeypatch.setattr(orthogonal, "STEPS", 3)
    monkeypatch.setattr(orthogonal, "_RATE", 0.3)


def reshape(model, transformations, **recipe):
    """The dense model after ``induce`` has absorbed no scale: transformations alone."""
    recipe = {"pattern": "2:4", "induction": {"epochs": 0, "absorb": False, "shift": False}, **recipe}
    return induce(model, "wanda", transformations=transformations, **recipe)


@pytest.mark.filterwarnings("ignore:transformation")
@pytest.mark.parametrize("name", ["llama", "llama-tied-biased", "qwen3", "opt", "opt-post-norm", "bert"])
def test_a_reshaped_checkpoint_loads_in_stock_transformers_with_the_same_function(name, tmp_path):
    dense = tiny(name)
    before = dense.state_dict()
    pruner = reshape(tiny(name), ALL, save_dir=None)
    assert pruner.report.transformations == (ALL if name not in ("opt-post-norm", "bert") else ALL[1:])
    pruner.save_pretrained(tmp_path / "out")
    loader = AutoModelForMaskedLM if name == "bert" else AutoModelForCausalLM
    loaded = loader.from_pretrained(tmp_path / "out")
    after = loaded.state_dict()
    assert {key: value.shape for key, value in after.items()} == {key: value.shape for key, value in before.items()}
    assert relative_change(logits(loaded, inputs_of(name, 4)), logits(dense, inputs_of(name, 4))) <= 1e-5
    assert torch.equal(logits(loaded), logits(pruner.model))
    assert loaded.config.sparsity_config["transformations"] == pruner.report.transformations
    assert Report.load(tmp_path / "out").transformations == pruner.report.transformations


def test_a_tied_head_is_untied_with_a_warning_and_stays_so_on_disk(tmp_path):
    model = tiny("llama-tied-biased")
    expected = logits(model)
    with pytest.warns(UserWarning, match="no longer tied"):
        SIPruner(model).prune(SIConfig("wanda", transformations="residual", induction=None), calibration(""), tmp_path)
    assert model.config.tie_word_embeddings is False
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.lm_head.weight is not loaded.model.embed_tokens.weight
    assert not torch.equal(loaded.lm_head.weight, loaded.model.embed_tokens.weight)
    assert torch.equal(logits(loaded), logits(model)) and not torch.equal(logits(model), expected)


@pytest.mark.parametrize("name", ["llama-tied-biased", "opt", "bert"])
def test_permutations_and_heads_keep_heads_tied(name):
    model = reshape(tiny(name), ["heads", "permutation"]).model
    assert model.config.tie_word_embeddings
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("transformation", ALL)
@pytest.mark.parametrize("method", ["magnitude", "sparsegpt"])
def test_each_transformation_changes_the_result_and_the_same_seed_repeats_it(method, transformation):
    recipe = {"pattern": "2:4", "induction": None}
    plain = prune(tiny("llama"), method, **recipe).model
    first, second = (prune(tiny("llama"), method, transformations=transformation, **recipe) for _ in range(2))
    assert first.report.transformations == [transformation]
    assert not same_bytes(plain, first.model) and same_bytes(first.model, second.model)
    for weight in block_weights(first.model).values():
        assert ((weight.reshape(-1, 4) != 0).sum(dim=1) == 2).all()


def test_permutations_do_nothing_without_a_pattern():
    plain = prune(tiny("llama"), sparsity=0.5, induction=None)
    permuted = prune(tiny("llama"), sparsity=0.5, induction=None, transformations="permutation")
    assert same_bytes(plain.model, permuted.model)
    assert permuted.report.transformations == []
    assert permuted.model.config.sparsity_config["transformations"] is None


def test_no_sparsity_changes_no_bit():
    pruner = prune(tiny("llama"), transformations=ALL, **DENSE)
    assert same_bytes(pruner.model, tiny("llama")) and pruner.report.transformations == []


@pytest.mark.parametrize("induction", [{"epochs": 2, "learning_rate": 0.02}, {"epochs": 2, "absorb": False}])
def test_induce_and_prune_is_prune(tmp_path, induction):
    recipe = {"pattern": "2:4", "induction": induction, "transformations": ALL}
    at_once = prune(tiny("llama"), "wanda", **recipe)
    induce(tiny("llama"), "wanda", save_dir=tmp_path, **recipe)
    afterwards = prune(str(tmp_path), "wanda", **recipe)
    assert afterwards.report.transformations == ALL
    assert same_bytes(at_once.model, afterwards.model)
    # Also for a recipe that learns its scales anew, or that names no transformation at all.
    other = prune(str(tmp_path), "wanda", pattern="2:4", induction=None)
    assert other.report.transformations == ALL


def test_a_transformation_is_not_repeated_and_a_new_one_is_added(tmp_path):
    induce(tiny("llama"), "wanda", save_dir=tmp_path, pattern="2:4", transformations=["residual"])
    (tmp_path / "si_scales.safetensors").unlink()
    pruner = prune(str(tmp_path), "wanda", pattern="2:4", transformations=["residual", "heads"], induction=None)
    assert pruner.report.transformations == ["residual", "heads"]
    assert json.loads((tmp_path / "config.json").read_text())["sparsity_config"]["transformations"] == ["residual"]


@pytest.mark.parametrize("name", ["gpt2", "gpt-neox", "t5", "vit"])
def test_undeclared_families_are_pruned_without_and_a_warning_says_so(name):
    with pytest.warns(UserWarning, match=r"transformations=\['residual', 'heads', 'permutation'\] do not apply"):
        pruner = prune(tiny(name), transformations=ALL, pattern="2:4", induction=None)
    assert pruner.report.transformations == []
    assert same_bytes(pruner.model, prune(tiny(name), pattern="2:4", induction=None).model)


def test_a_model_that_is_not_what_its_family_says_gets_its_weights_back():
    """A hook that reads one channel of the stream knows its basis."""
    model, untouched = tiny("llama-tied-biased"), tiny("llama-tied-biased")
    for each in (model, untouched):
        each.model.layers[0].register_forward_hook(
            lambda module, args, output: output + output[..., :1] if isinstance(output, torch.Tensor) else output
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pruner = reshape(model, ["residual"])
    assert any("was taken back" in str(warning.message) for warning in caught)
    assert pruner.report.transformations == [] and same_bytes(model, untouched)
    assert model.config.tie_word_embeddings and model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.filterwarnings("ignore:transformation")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llama-tied-biased", "opt"])
def test_narrow_models_are_cast_back_once_and_permutations_round_nothing(name, dtype):
    model = reshape(tiny(name, dtype), ALL).model
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    # A cast of every weight moves the answers of these models by about as much.
    assert relative_change(logits(model), logits(tiny(name, dtype))) <= 0.1
    permuted = reshape(tiny(name, dtype), ["permutation"]).model
    for key, value in tiny(name, dtype).state_dict().items():
        ours = permuted.state_dict()[key]
        assert torch.equal(ours.flatten().sort().values, value.flatten().sort().values), key


def test_excluded_layers_do_not_stand_in_the_way():
    model = tiny("llama")
    expected = logits(model)
    pruner = reshape(model, ALL, exclude=["*.o_proj", "*.down_proj", "*.layers.0.*"])
    assert pruner.report.transformations == ["residual", "heads", "permutation"]
    assert relative_change(logits(pruner.model), expected) <= 1e-5


def test_reports_of_earlier_versions_are_read(tmp_path):
    prune(tiny("llama"), pattern="2:4", induction=None, save_dir=tmp_path)
    path = tmp_path / "si_report.json"
    values = json.loads(path.read_text())
    del values["transformations"]
    path.write_text(json.dumps(values))
    assert Report.load(tmp_path).transformations == []


def test_layers_that_are_sparse_already_keep_their_zeros():
    model = tiny("llama")
    prune(model, include="*.mlp.*", pattern="2:4", induction=None)
    before = {name: weight == 0 for name, weight in block_weights(model).items() if ".mlp." in name}
    with pytest.warns(UserWarning, match="would fill the zeros that 6 layers have already"):
        SIPruner(model).prune(
            SIConfig("wanda", include="*.self_attn.*", pattern="2:4", induction=None, transformations=["residual"]),
            calibration(""),
            progress=False,
        )
    after = block_weights(model)
    assert all(torch.equal(after[name] == 0, mask) for name, mask in before.items())


def test_scales_of_another_basis_are_not_taken_up(tmp_path):
    recipe = {"pattern": "2:4", "induction": {"epochs": 1, "learning_rate": 0.05}}
    induce(tiny("llama"), "magnitude", save_dir=tmp_path, **recipe)
    pruner = SIPruner.from_pretrained(str(tmp_path))
    with pytest.warns(UserWarning, match="the saved scales were learned before transformations="):
        pruner.prune(SIConfig("magnitude", transformations=["permutation"], **recipe), calibration(""), progress=False)
