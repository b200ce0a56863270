"""What a user does wrong is named, with the way out, before anything is changed or lost."""

import json
from copy import deepcopy

import pytest
import torch
from support.models import induce, prune, same_bytes, tiny, token_windows
from transformers import AlbertConfig, AlbertModel, BertConfig, BertLMHeadModel

from optimum_si import (
    CalibrationError,
    CheckpointError,
    ConfigurationError,
    NumericalError,
    Report,
    SIConfig,
    SIPruner,
    UnsupportedModelError,
)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_damaged_weight_names_its_layer(value):
    model = tiny("llama")
    model.model.layers[1].mlp.up_proj.weight.data[0, 0] = value
    with pytest.raises(NumericalError, match=r"'model\.layers\.1\.mlp\.up_proj' holds NaN or infinity.*another copy"):
        prune(model)


@pytest.mark.parametrize("name", ["model.norm.weight", "lm_head.weight", "model.layers.1.mlp.down_proj.bias"])
def test_damage_outside_the_pruned_weights_is_found_too(name):
    model = tiny("llama-tied-biased" if "bias" in name else "llama")
    model.get_parameter(name).data[0] = float("nan")
    with pytest.raises(NumericalError, match=name.removesuffix(".weight")):
        prune(model, "magnitude", induction=None)


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
@pytest.mark.parametrize("induction", [None, {"epochs": 1}])
def test_activations_with_nan_name_the_layer_that_reads_them(method, induction):
    model = tiny("llama")
    model.model.embed_tokens.register_forward_hook(lambda module, args, output: output * float("nan"))
    with pytest.raises(NumericalError, match=r"'model\.layers\.0\.self_attn\.q_proj'.*NaN or infinity"):
        prune(model, method, torch.full((4, 8), 5), induction=induction)


def test_an_overflow_in_a_later_block_names_it():
    model = tiny("llama")
    model.model.layers[1].input_layernorm.weight.data[:] = float("inf")
    with pytest.raises(NumericalError, match=r"'model\.layers\.1\."):
        prune(model, induction=None)


def test_a_singular_gram_matrix_takes_more_damping_and_says_so():
    pruner = prune(tiny("llama"), "sparsegpt", token_windows(1, 4), damping=0.0, induction=None)
    assert {layer.fallback for layer in pruner.report.layers} == {"10 times the damping"}
    assert (
        "layers that could not be stored as the recipe has them: 14 with 10 times the damping"
        in pruner.report.summary()
    )


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
def test_columns_that_no_group_fits_name_the_layer(method):
    with pytest.raises(ConfigurationError, match=r"multiple of 5.*'model\.layers\.0\.self_attn\.q_proj' has 32"):
        prune(tiny("llama"), method, pattern="2:5")


def test_a_block_that_is_called_several_times_is_pruned_once_on_all_its_calls():
    model = AlbertModel(
        AlbertConfig(
            vocab_size=48,
            hidden_size=32,
            num_attention_heads=4,
            intermediate_size=48,
            num_hidden_layers=3,
            embedding_size=16,
        )
    )
    dense = deepcopy(model).double().eval()
    report = prune(model.double(), data=token_windows(8), induction=None, calibration={"batch_size": 1}).report
    assert [block.name for block in report.blocks] == ["encoder.albert_layer_groups.0"]
    layer = "encoder.albert_layer_groups.0.albert_layers.0.attention.query"
    seen = []
    dense.get_submodule(layer).register_forward_pre_hook(lambda module, args: seen.append(args[0].flatten(0, -2)))
    with torch.no_grad():
        for window in token_windows(8):
            dense(window[None])
    weight = dense.get_submodule(layer).weight.detach()
    score = weight.abs() * torch.cat(seen).square().sum(0).sqrt()
    expected = torch.ones_like(weight).scatter_(1, score.argsort(dim=1, stable=True)[:, :16], 0)
    assert torch.equal(model.get_submodule(layer).weight != 0, expected != 0)


def test_layers_that_calibration_never_reaches_are_said_to_stay_dense():
    config = BertConfig(
        vocab_size=48,
        hidden_size=32,
        num_attention_heads=4,
        intermediate_size=48,
        num_hidden_layers=2,
        is_decoder=True,
        add_cross_attention=True,
    )
    with pytest.warns(UserWarning, match="layers were never called .* stay dense: .*crossattention"):
        prune(BertLMHeadModel(config), "magnitude", induction=None)


@pytest.mark.parametrize("kind", ["include", "exclude"])
def test_a_glob_that_matches_nothing_shows_names(kind):
    with pytest.raises(ConfigurationError, match=rf"{kind}='\*\.nothing' matches none.*q_proj"):
        prune(tiny("llama"), **{kind: "*.nothing"})


def test_text_without_a_tokenizer_asks_for_one():
    with pytest.raises(CalibrationError, match="tokenizer"):
        prune(tiny("llama"), data=["some text"])


def test_no_data_says_what_is_accepted():
    with pytest.raises(CalibrationError, match="no calibration data"):
        SIPruner(tiny("llama")).prune(SIConfig("magnitude", induction=None), progress=False)


def test_examples_longer_than_the_model_are_refused():
    with pytest.raises(CalibrationError, match="40"):
        prune(tiny("llama"), data=token_windows(2, 41))


@pytest.mark.parametrize(
    "mistake",
    [{"data": token_windows(2, 41)}, {"pattern": "2:5"}, {"include": "*.nothing"}, {"data": ["text"]}],
    ids=lambda mistake: next(iter(mistake)),
)
def test_a_mistake_leaves_the_model_untouched(mistake):
    model = tiny("llama")
    with pytest.raises((CalibrationError, ConfigurationError)):
        prune(model, **mistake)
    assert same_bytes(model, tiny("llama")) and not hasattr(model.config, "sparsity_config")


def test_something_else_than_a_model_is_refused():
    with pytest.raises(UnsupportedModelError, match="PreTrainedModel, not Linear"):
        SIPruner(torch.nn.Linear(2, 2))


def test_something_else_than_a_recipe_is_refused():
    with pytest.raises(ConfigurationError, match="expected an SIConfig"):
        SIPruner(tiny("llama")).prune({"method": "wanda"}, token_windows())


def test_inducing_without_induction_is_refused():
    with pytest.raises(ConfigurationError, match="nothing to do"):
        SIPruner(tiny("llama")).induce(SIConfig(induction=None), token_windows())


def test_loading_options_for_a_loaded_model_are_refused():
    with pytest.raises(ConfigurationError, match="dtype"):
        SIPruner.from_pretrained(tiny("llama"), dtype=torch.float16)


def edit_config(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_quantized_checkpoints_are_refused(tmp_path):
    tiny("llama").save_pretrained(tmp_path)
    edit_config(tmp_path, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(UnsupportedModelError, match="gptq.*prune the original"):
        SIPruner.from_pretrained(tmp_path)


@pytest.mark.parametrize("entry", [SIPruner, SIPruner.from_pretrained], ids=["SIPruner", "from_pretrained"])
def test_quantized_models_that_are_already_loaded_are_refused(entry):
    model = tiny("llama")
    model.config.quantization_config = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    with pytest.raises(UnsupportedModelError, match="bitsandbytes"):
        entry(model)


def test_repositories_with_their_own_code_need_trust(tmp_path):
    tiny("llama").save_pretrained(tmp_path)
    edit_config(
        tmp_path,
        model_type="foreign",
        architectures=["ForeignModel"],
        auto_map={"AutoConfig": "code.ForeignConfig", "AutoModelForCausalLM": "code.ForeignModel"},
    )
    with pytest.raises(UnsupportedModelError, match="trust_remote_code=True"):
        SIPruner.from_pretrained(tmp_path)


def test_a_place_without_a_model_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        SIPruner.from_pretrained(tmp_path / "nowhere")


def test_damaged_weights_are_named(tmp_path):
    tiny("llama").save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="no safetensors file, or is damaged"):
        SIPruner.from_pretrained(tmp_path)


def test_a_missing_tokenizer_that_was_asked_for_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no tokenizer"):
        SIPruner.from_pretrained(tiny("llama"), tokenizer=tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["{}", "not json", "[]", "null", "5", '{"sparsity": 1, "blocks": 3}', "\udcff"])
def test_a_damaged_report_is_named(tmp_path, content):
    (tmp_path / "si_report.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(CheckpointError, match=r"si_report\.json.*damaged"):
        Report.load(tmp_path)


def test_a_directory_without_a_report_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no si_report\.json"):
        Report.load(tmp_path)


def test_damaged_scales_are_named(tmp_path):
    induce(tiny("llama"), save_dir=tmp_path / "out")
    scales = tmp_path / "out" / "si_scales.safetensors"
    for content in (b"broken", scales.read_bytes()[:-8], b""):
        scales.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"si_scales\.safetensors.*damaged"):
            SIPruner.from_pretrained(tmp_path / "out")


def test_scales_of_another_model_are_refused(tmp_path):
    recipe = {"method": "magnitude", "induction": {"epochs": 2, "learning_rate": 0.05}}
    induce(tiny("llama"), save_dir=tmp_path / "out", **recipe)
    # Value heads of another size, and so scales of another size.
    other = induce(tiny("qwen3"), save_dir=tmp_path / "other", **recipe)
    assert any(block.choice == "induced" for block in other.report.blocks)
    name = "si_scales.safetensors"
    (tmp_path / "out" / name).write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.raises(CheckpointError, match=r"si_scales"):
        prune(str(tmp_path / "out"), **recipe)


def test_tokens_of_another_vocabulary_are_refused():
    with pytest.raises(CalibrationError, match="token 1000.*embeds"):
        prune(tiny("llama"), data=torch.full((4, 8), 1000))


def test_an_invalid_generation_config_is_found_before_the_run(tmp_path):
    model = tiny("llama")
    model.generation_config.temperature = 0.6  # and do_sample stays False
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ConfigurationError, match="generation_config.*temperature"):
        SIPruner(model).prune(SIConfig(induction=None), token_windows(), save_dir=tmp_path / "out", progress=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("ids", [[[-100, 3, 4]], [[1, 2, -1]]])
def test_negative_token_ids_are_refused(ids):
    with pytest.raises(CalibrationError, match="ids begin with 0.*Labels such as -100"):
        SIPruner(tiny("llama")).prune(SIConfig(induction=None), torch.tensor(ids), progress=False)


def test_weights_that_are_not_in_memory_are_named():
    model = tiny("llama")
    model.model.layers[1].to("meta")
    with pytest.raises(UnsupportedModelError, match=r"9 weights are offloaded.* 'model.layers.1.self_attn"):
        prune(model, induction=None)


def test_a_tower_that_no_data_reaches_is_named_with_what_it_reads():
    from support.zoo import ZOO

    model, examples = ZOO["LlavaForConditionalGeneration"].build(), ZOO["LlavaForConditionalGeneration"].examples(2)
    text = [{"input_ids": example["input_ids"] % 20} for example in examples]
    with pytest.raises(CalibrationError, match="none of the .* blocks in 'model.vision_tower.* reads 'pixel_values'"):
        prune(model, data=text, induction=None)
    prune(model, data=text, induction=None, stacks="model.language_model.*")
    assert not any((value == 0).any() for value in model.model.vision_tower.parameters() if value.ndim > 1)
