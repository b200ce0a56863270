"""Adapters of peft: refused in models with the line that merges them, merged from folders, and never half."""

import json
import subprocess
import sys

import pytest
import torch
from peft import (
    IA3Config,
    LoKrConfig,
    LoraConfig,
    PeftModel,
    PromptTuningConfig,
    get_peft_model,
    inject_adapter_in_model,
)
from safetensors.torch import load_file, save_file
from support.models import calibration, induce, prune, same_bytes, save_with_tokenizer, tiny
from transformers import AutoModelForCausalLM, AutoTokenizer

from optimum_si import CheckpointError, Report, SIConfig, SIPruner, UnsupportedModelError, merge_adapters
from optimum_si.checkpoint.adapters import find_adapter
from optimum_si.checkpoint.load import load_model, load_tokenizer
from optimum_si.checkpoint.outputs import check_output


TOKENS = torch.tensor([[1, 5, 6, 7]])
TEXT = "some text that a tokenizer learns from, and more of it"
PLAIN = {"method": "wanda", "sparsity": 0.5, "induction": None}
KINDS = {
    "lora": lambda: LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False),
    "lora and a head": lambda: LoraConfig(
        r=4, target_modules=["q_proj", "embed_tokens"], modules_to_save=["lm_head"], init_lora_weights=False
    ),
    "dora": lambda: LoraConfig(r=4, use_dora=True, target_modules=["up_proj"], init_lora_weights=False),
    "ia3": lambda: IA3Config(
        target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], init_ia3_weights=False
    ),
    "lokr": lambda: LoKrConfig(r=10_000, alpha=10_000, target_modules=["q_proj"], init_weights=False),
}


def answers(model):
    with torch.no_grad():
        return model.eval()(TOKENS).logits


@pytest.fixture
def base(tmp_path):
    save_with_tokenizer(tiny("llama"), tmp_path / "base", TEXT)
    return tmp_path / "base"


def save_adapter(base, folder, config, seed=1):
    """An adapter's folder, and what the adapted model answers."""
    torch.manual_seed(seed)
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    adapted.save_pretrained(folder)
    return answers(adapted)


@pytest.fixture
def adapter(base, tmp_path):
    save_adapter(base, tmp_path / "adapter", KINDS["lora"]())
    return tmp_path / "adapter"


def change(folder, **values):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def line_of(message):
    return message.split("`")[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["wrapped", "injected"])
def test_a_model_with_adapters_is_refused_with_the_line_that_merges_them(kind, how):
    config, plain = KINDS[kind](), tiny("llama")
    model = get_peft_model(plain, config) if how == "wrapped" else inject_adapter_in_model(config, plain)
    expected, weights = answers(model), {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UnsupportedModelError, match="merge") as raised:
        SIPruner(model)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    names = {"model": model}
    exec(line_of(str(raised.value)), names)
    merged = names["model"]
    assert torch.allclose(answers(merged), expected, atol=1e-5)
    assert merged.state_dict().keys() == tiny("llama").state_dict().keys()
    assert SIPruner(merged).model is merged


def test_the_line_for_a_peft_model_is_that_of_peft():
    with pytest.raises(UnsupportedModelError) as raised:
        SIPruner.from_pretrained(get_peft_model(tiny("llama"), KINDS["lora"]()))
    assert line_of(str(raised.value)) == "model = model.merge_and_unload()"


def test_a_merged_model_is_saved_whole(tmp_path):
    model = merge_adapters(inject_adapter_in_model(KINDS["lora"](), tiny("llama")))
    model.save_pretrained(tmp_path)
    assert same_bytes(AutoModelForCausalLM.from_pretrained(tmp_path), model)


def test_adapters_that_transformers_loaded_are_refused_and_merged(adapter):
    model = AutoModelForCausalLM.from_pretrained(adapter)
    assert model._hf_peft_config_loaded
    expected = answers(model)
    with pytest.raises(UnsupportedModelError, match="merge_adapters"):
        SIPruner(model)
    assert torch.allclose(answers(merge_adapters(model)), expected, atol=1e-5)
    assert prune(model, **PLAIN).report.sparsity == 0.5


def test_a_replaced_head_of_a_tied_model_is_untied(tmp_path):
    model = inject_adapter_in_model(
        LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"]), tiny("llama-tied-biased")
    )
    with torch.no_grad():
        model.lm_head.modules_to_save["default"].weight.add_(1)
    expected = answers(model)
    merge_adapters(model).save_pretrained(tmp_path)
    assert torch.allclose(answers(AutoModelForCausalLM.from_pretrained(tmp_path)), expected, atol=1e-5)


def test_prompts_that_were_learned_cannot_be_merged(base, tmp_path):
    config = PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    adapted.save_pretrained(tmp_path / "prompts")
    with pytest.raises(UnsupportedModelError, match="prune the base model itself"):
        SIPruner(adapted)
    with pytest.raises(UnsupportedModelError, match="PROMPT_TUNING.*prune the base model"):
        load_model(tmp_path / "prompts")


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_folder_is_loaded_and_merged(base, tmp_path, kind):
    expected = save_adapter(base, tmp_path / "adapter", KINDS[kind]())
    assert not torch.allclose(answers(load_model(base)), expected, atol=1e-3)
    pruner = SIPruner.from_pretrained(tmp_path / "adapter")
    assert torch.allclose(answers(pruner.model), expected, atol=1e-5)
    assert pruner.model.state_dict().keys() == load_model(base).state_dict().keys()
    assert pruner.tokenizer.get_vocab() == AutoTokenizer.from_pretrained(base).get_vocab()


@pytest.mark.parametrize("task", ["prune", "induce"])
def test_the_report_and_the_card_say_what_was_merged(adapter, tmp_path, task):
    {"prune": prune, "induce": induce}[task](str(adapter), "wanda", save_dir=tmp_path / "out", sparsity=0.5)
    report = Report.load(tmp_path / "out")
    assert "\nmerged adapter adapter into base\n" in report.summary()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "merged adapter `adapter` into `base`" in card and str(tmp_path) not in card
    again = prune(str(tmp_path / "out"), "magnitude", sparsity=0.5, induction=None)
    assert ("adapter_of" in again.report.base) == (task == "induce")


def test_an_adapter_on_the_hub_takes_the_revision_of_its_base(base, adapter, local_hub, tmp_path):
    other = tmp_path / "other"
    save_with_tokenizer(tiny("llama"), other, TEXT)
    files = {name: (base / name).read_bytes() for name in ("config.json", "model.safetensors", "tokenizer.json")}
    files |= {"tokenizer_config.json": (base / "tokenizer_config.json").read_bytes(), "LICENSE": b"of the base"}
    files["README.md"] = b"---\nlicense: mit\n---\n"
    local_hub.repositories["org/base"] = {"config.json": b"{}"}
    local_hub.branches["org/base", "v1"] = files
    change(adapter, base_model_name_or_path="org/base", revision="v1")
    names = ("adapter_config.json", "adapter_model.safetensors")
    local_hub.repositories["me/adapter"] = {name: (adapter / name).read_bytes() for name in names}
    pruner = SIPruner.from_pretrained("me/adapter")
    change(adapter, base_model_name_or_path=str(base), revision=None)
    assert same_bytes(pruner.model, load_model(adapter)) and pruner.tokenizer is not None
    pruner.prune(SIConfig(**PLAIN), calibration("llama"), save_dir=tmp_path / "out", progress=False)
    assert pruner.report.base == {"name": "me/adapter", "on_hub": True, "adapter_of": "org/base", "license": "mit"}
    assert (tmp_path / "out" / "LICENSE").read_bytes() == b"of the base"


def test_an_adapter_beside_its_model_is_merged_into_it(base, adapter):
    expected = answers(load_model(adapter))
    change(adapter, base_model_name_or_path="no/such-model")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (base / name).write_bytes((adapter / name).read_bytes())
    pruner = SIPruner.from_pretrained(base)
    assert torch.allclose(answers(pruner.model), expected, atol=1e-6)
    assert pruner.model.name_or_path == pruner.source == str(base)
    weights = load_file(base / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=f"{base.name}' lacks 1 weights.*model.norm.weight"):
        load_model(base)


def test_an_adapter_with_new_tokens_makes_room_for_them(base, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(model.config.vocab_size + 3)
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"]))
    adapted.save_pretrained(tmp_path / "adapter")
    assert torch.equal(answers(load_model(tmp_path / "adapter")), answers(adapted))


def test_code_of_the_base_is_not_run(base, adapter, tmp_path):
    (base / "evil.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).write_text('')\n")
    config = json.loads((base / "config.json").read_text())
    code = {"auto_map": {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}}
    (base / "config.json").write_text(json.dumps({**config, **code, "model_type": "evil", "architectures": ["Evil"]}))
    with pytest.raises(UnsupportedModelError, match="is an adapter of .*base.*needs its own modeling code"):
        SIPruner.from_pretrained(adapter)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"target_modules": "(([a-z_.0-9]+)+)+!"}, "a regular expression"),
        ({"rank_pattern": {"([a-z_.0-9]+)+!": 2}}, "rank_pattern, a regular expression that repeats"),
        ({"alpha_pattern": {"(a|aa){9}": 2}}, "alpha_pattern, a regular expression that repeats"),
        ({"layers_pattern": ["(.*)*x"]}, "a regular expression"),
        ({"megatron_config": {"a": 1}, "megatron_core": "evil"}, "megatron_config"),
        ({"layer_replication": [[0, 10**9]]}, "layer_replication"),
        ({"r": 10**9}, "r=1,000,000,000.*cannot fill"),
        ({"rank_pattern": {"q_proj": 10**9}}, "rank_pattern=1,000,000,000.*cannot fill"),
        ({"base_model_name_or_path": None}, "names no base_model_name_or_path"),
        ({"base_model_name_or_path": 3}, "names no base_model_name_or_path"),
        ({"base_model_name_or_path": "/no/such/base"}, "is an adapter of '/no/such/base' .base_model_name_or_path"),
        ({"peft_type": "EVIL"}, "EVIL"),
        ({"peft_type": None}, "cannot be loaded"),
        ({"target_modules": ["nowhere"]}, "nowhere"),
        ({"target_modules": ["q_proj"]}, "does not fit LlamaForCausalLM"),
        ({"target_modules": ["q_proj", "v_proj", "k_proj"]}, "does not fit LlamaForCausalLM"),
    ],
    ids=str,
)
def test_a_hostile_or_damaged_adapter_is_one_line(adapter, values, message):
    change(adapter, **values)
    with pytest.raises(CheckpointError, match=message) as raised:
        SIPruner.from_pretrained(adapter)
    assert "\n" not in str(raised.value)
    assert load_tokenizer(adapter, required=False) is None or "base_model_name_or_path" not in values


def test_an_adapter_of_an_adapter_or_of_itself_is_refused(adapter):
    change(adapter, base_model_name_or_path=str(adapter))
    with pytest.raises(UnsupportedModelError, match="an adapter itself"):
        load_model(adapter)


def test_an_adapter_without_its_weights_is_named(adapter):
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="has adapter_config.json and no adapter_model.safetensors"):
        load_model(adapter)


def test_weights_that_belong_nowhere_are_not_left_out_silently(adapter):
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({**weights, "base_model.model.score.weight": torch.ones(3, 32)}, adapter / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="does not fit.*score.weight.*merge_and_unload"):
        load_model(adapter)


def test_the_base_of_an_adapter_is_never_replaced(base, adapter):
    for source in (adapter, str(adapter)):
        with pytest.raises(CheckpointError, match="which this run reads"):
            check_output(base, overwrite=True, sources=[source])
    assert find_adapter(adapter).base == str(base)


def test_without_peft_the_package_is_named(adapter, base):
    """Of an adapter beside its model too, which transformers would leave out without a word."""
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (base / name).write_bytes((adapter / name).read_bytes())
    script = (
        "import sys; sys.modules['peft'] = None\n"
        "from optimum_si import CheckpointError, SIPruner\n"
        "from optimum_si.checkpoint import adapters\n"
        "adapters.find_spec = lambda name: None\n"
        "for folder in sys.argv[1:]:\n"
        "    try: SIPruner.from_pretrained(folder)\n"
        "    except CheckpointError as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", script, str(adapter), str(base)], capture_output=True, text=True)
    assert run.stdout.count("pip install peft") == 2, run.stderr


def test_a_plain_model_passes_without_asking_for_peft():
    script = (
        "import sys; sys.modules['peft'] = None\n"
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "from optimum_si import SIPruner\n"
        "sizes = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=8)\n"
        "SIPruner(LlamaForCausalLM(LlamaConfig(**sizes)))\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_peft_itself_answers_as_the_merged_model(base, adapter):
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    assert torch.allclose(answers(load_model(adapter)), answers(adapted), atol=1e-5)
