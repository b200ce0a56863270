"""GGUF files as a source: however one is named, the result is the ordinary dense model that it holds."""

import builtins
import importlib.util
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel

from optimum_si import CheckpointError, ConfigurationError, SIConfig, SIPruner, UnsupportedModelError, evaluate
from optimum_si.checkpoint.gguf import find_gguf
from optimum_si.checkpoint.load import load_model, load_tokenizer


gguf_files = pytest.importorskip("support.gguf_files", reason="needs the extra gguf")
Quantization = gguf_files.Quantization
WANDA = SIConfig(
    "wanda", sparsity=0.5, induction=None, calibration={"num_samples": 2, "sequence_length": 16, "batch_size": 2}
)
TEXTS = ["the quick brown fox jumps over the lazy dog. " * 4] * 4


@pytest.fixture
def held(tmp_path):
    """What ``tiny.gguf`` in ``tmp_path / "models"`` holds, by name."""
    (tmp_path / "models").mkdir()
    return gguf_files.write_gguf(tmp_path / "models" / "tiny.gguf", gguf_files.tiny_llama(), Quantization.Q8_0)


def weights_are(model: PreTrainedModel, expected: dict[str, torch.Tensor]) -> bool:
    state = model.state_dict()
    return all(torch.equal(state[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("place,options", [
    ("models/tiny.gguf", {}), ("models", {}), ("models", {"gguf_file": "tiny.gguf"}),
    (".", {"gguf_file": "tiny.gguf", "subfolder": "models"}),
])  # fmt: skip
def test_a_file_is_loaded_however_it_is_named(held, tmp_path, place, options):
    pruner = SIPruner.from_pretrained(tmp_path / place, **options)
    assert weights_are(pruner.model, held)
    assert {parameter.dtype for parameter in pruner.model.parameters()} == {torch.float32}
    assert pruner.tokenizer.convert_ids_to_tokens([3, 4]) == ["a", "b"]


@pytest.mark.parametrize("dequantize", [True, False])
def test_a_model_that_the_user_loaded_is_accepted(held, tmp_path, dequantize):
    recipe = GgufConfig(dequantize=dequantize)
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path / "models", gguf_file="tiny.gguf", quantization_config=recipe
    )
    assert dequantize or model.config.quantization_config
    pruner = SIPruner.from_pretrained(model)
    assert weights_are(pruner.model, held) and pruner.tokenizer is not None
    assert "quantization_config" not in pruner.model.config.to_dict()


def test_packed_weights_are_refused(held, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "models", gguf_file="tiny.gguf")
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.to(torch.uint8), requires_grad=False)
    with pytest.raises(UnsupportedModelError, match="dequantize=True"):
        SIPruner(model)


def test_the_result_is_an_ordinary_checkpoint(held, tmp_path):
    pruner = SIPruner.from_pretrained(tmp_path / "models" / "tiny.gguf")
    pruner.prune(WANDA, dataset=TEXTS, save_dir=tmp_path / "out", progress=False)
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert weights_are(reloaded, pruner.model.state_dict())
    assert (reloaded.model.layers[0].mlp.up_proj.weight == 0).float().mean() == 0.5
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == gguf_files.TEMPLATE
    assert pruner.report.base["name"] == "tiny.gguf"
    written = [file.read_text() for file in (tmp_path / "out").iterdir() if file.suffix in (".json", ".md")]
    assert not any(str(tmp_path) in text for text in written), "no path of this machine is published"


def test_the_card_beside_a_file_gives_its_license(held, tmp_path):
    (tmp_path / "models" / "README.md").write_text("---\nlicense: mit\n---\nA model.")
    pruner = SIPruner.from_pretrained(tmp_path / "models" / "tiny.gguf")
    pruner.prune(WANDA, dataset=TEXTS, progress=False)
    assert pruner.report.base == {"name": "tiny.gguf", "on_hub": False, "license": "mit"}


@pytest.mark.parametrize("tied", [True, False])
def test_heads_stay_tied_or_apart(tmp_path, tied):
    expected = gguf_files.write_gguf(tmp_path / "tiny.gguf", gguf_files.tiny_llama(tied))
    model = load_model(tmp_path / "tiny.gguf")
    model.save_pretrained(tmp_path / "out")
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    for one in (model, reloaded):
        assert weights_are(one, expected)
        assert (one.lm_head.weight is one.model.embed_tokens.weight) == tied


@pytest.mark.parametrize("stored,asked,dtype", [
    ("Q4_1", "auto", torch.float32), ("Q8_0", "bfloat16", torch.bfloat16), ("F32", torch.float16, torch.float16),
])  # fmt: skip
def test_the_dtype_is_fp32_unless_asked_for(tmp_path, stored, asked, dtype):
    held = gguf_files.write_gguf(tmp_path / "tiny.gguf", gguf_files.tiny_llama(), Quantization[stored])
    model = load_model(tmp_path / "tiny.gguf", dtype=asked)
    assert weights_are(model, {name: tensor.to(dtype) for name, tensor in held.items()})
    assert model.dtype == dtype


def test_a_file_is_evaluated_beside_what_it_became(held, tmp_path):
    SIPruner.from_pretrained(tmp_path / "models").save_pretrained(tmp_path / "same")
    found = evaluate(
        [tmp_path / "models", tmp_path / "same"],
        dataset=TEXTS,
        sequence_length=16,
        gguf_file="tiny.gguf",
        progress=False,
    )
    assert found[0].perplexity == found[1].perplexity


@pytest.mark.slow
def test_a_file_is_exported(held, tmp_path):
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    from optimum_si.onnx import export
    from optimum_si.onnx.runtime.causal import ORTSIModelForCausalLM

    export(tmp_path / "models", tmp_path / "onnx", gguf_file="tiny.gguf")
    config = json.loads((tmp_path / "onnx" / "config.json").read_text())
    assert "quantization_config" not in config and (tmp_path / "onnx" / "tokenizer.json").is_file()
    ids = torch.tensor([[3, 4, 5, 6]])
    exported = ORTSIModelForCausalLM.from_pretrained(tmp_path / "onnx")(ids).logits
    with torch.no_grad():
        torch.testing.assert_close(exported, load_model(tmp_path / "models")(ids).logits, atol=1e-4, rtol=1e-4)


def test_an_ordinary_checkpoint_beside_a_file_is_what_is_meant(held, tmp_path):
    SIPruner.from_pretrained(tmp_path / "models").save_pretrained(tmp_path / "both")
    (tmp_path / "models" / "tiny.gguf").rename(tmp_path / "both" / "tiny.gguf")
    assert find_gguf(tmp_path / "both") is None
    assert find_gguf(tmp_path / "both", "tiny.gguf") == tmp_path / "both" / "tiny.gguf"
    assert find_gguf("some/repository") is None


def fails(place, error, **options) -> str:
    with pytest.raises(error) as caught:
        SIPruner.from_pretrained(place, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_that_is_not_there_is_said_to_be(held, tmp_path):
    assert "does not exist" in fails(tmp_path / "models" / "other.gguf", CheckpointError)
    assert "it has tiny.gguf" in fails(tmp_path / "models", CheckpointError, gguf_file="other.gguf")
    assert "leave out" in fails(tmp_path / "models" / "tiny.gguf", CheckpointError, gguf_file="other.gguf")
    assert "loaded model" in fails(gguf_files.tiny_llama(), ConfigurationError, gguf_file="tiny.gguf")


def test_of_several_files_one_has_to_be_named(held, tmp_path):
    (tmp_path / "models" / "other.gguf").write_bytes((tmp_path / "models" / "tiny.gguf").read_bytes())
    assert "--gguf-file" in fails(tmp_path / "models", CheckpointError)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "models", gguf_file="tiny.gguf")
    assert SIPruner.from_pretrained(loaded).tokenizer is None, "which file a loaded model came from is not known"
    assert weights_are(load_model(tmp_path / "models", gguf_file="tiny.gguf"), held)


def test_an_unknown_architecture_is_named(tmp_path):
    gguf_files.write_gguf(tmp_path / "tiny.gguf", gguf_files.tiny_llama(), architecture="abacus")
    assert "'abacus'" in fails(tmp_path / "tiny.gguf", UnsupportedModelError)


@pytest.mark.parametrize("number,name", [(999, "number 999"), (Quantization.Q8_K.value, "Q8_K")])
def test_an_unknown_quantization_is_named(held, tmp_path, number, name):
    file = tmp_path / "models" / "tiny.gguf"
    content = bytearray(file.read_bytes())
    place = content.index(b"blk.0.ffn_up.weight") + len(b"blk.0.ffn_up.weight") + 4 + 2 * 8
    assert int.from_bytes(content[place : place + 4], "little") == Quantization.Q8_0
    content[place : place + 4] = number.to_bytes(4, "little")
    file.write_bytes(content)
    assert f"type {name}" in fails(file, UnsupportedModelError)


@pytest.mark.parametrize("kept", [0.99, 0.9, 0.5, 0.2, 0.02])
def test_a_truncated_file_is_said_to_be(held, tmp_path, kept):
    file = tmp_path / "models" / "tiny.gguf"
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])
    assert "truncated" in fails(file, CheckpointError)


def test_what_is_no_gguf_file_is_said_to_be(tmp_path):
    (tmp_path / "tiny.gguf").write_bytes(b"PK\3\4" * 100)
    assert "no GGUF file" in fails(tmp_path / "tiny.gguf", CheckpointError)


def test_a_part_of_a_model_is_refused(tmp_path):
    gguf_files.write_gguf(tmp_path / "tiny.gguf", gguf_files.tiny_llama(), extra={"split.count": 3})
    assert "one of 3 parts" in fails(tmp_path / "tiny.gguf", CheckpointError)


def test_without_a_tokenizer_inside_tokens_are_needed_or_another_one(held, tmp_path):
    gguf_files.write_gguf(tmp_path / "none.gguf", gguf_files.tiny_llama(), tokenizer=False)
    pruner = SIPruner.from_pretrained(tmp_path / "none.gguf")
    assert pruner.tokenizer is None
    pruner.prune(WANDA, dataset=[{"input_ids": list(range(3, 19))}] * 2, progress=False)
    with pytest.raises(ValueError, match="--tokenizer"):
        pruner.prune(WANDA, dataset=TEXTS, progress=False)
    with pytest.raises(CheckpointError, match="no tokenizer inside"):
        load_tokenizer(tmp_path / "none.gguf", required=True)
    other = SIPruner.from_pretrained(tmp_path / "none.gguf", tokenizer=tmp_path / "models" / "tiny.gguf")
    other.prune(WANDA, dataset=TEXTS, progress=False)


def test_a_tokenizer_that_cannot_be_read_is_a_warning(tmp_path):
    gguf_files.write_gguf(tmp_path / "tiny.gguf", gguf_files.tiny_llama(), merge="a b")
    with pytest.warns(UserWarning, match="--tokenizer"):
        assert SIPruner.from_pretrained(tmp_path / "tiny.gguf").tokenizer is None
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_tokenizer(tmp_path / "tiny.gguf", required=True)


@pytest.mark.parametrize("missing", ["gguf", "accelerate"])
def test_a_missing_package_is_named_with_how_to_install_it(held, tmp_path, monkeypatch, missing):
    find, load = importlib.util.find_spec, builtins.__import__

    def importing(name, *rest):
        if name.partition(".")[0] == missing:
            raise ImportError(name)
        return load(name, *rest)

    monkeypatch.setattr("optimum_si.checkpoint.gguf.find_spec", lambda name: None if name == missing else find(name))
    monkeypatch.setattr(builtins, "__import__", importing)
    message = fails(tmp_path / "models", CheckpointError)
    assert missing in message and 'pip install "optimum-si[gguf]"' in message


@pytest.mark.parametrize("name", ["llama.block_count", "llama.expert_count"])
def test_more_blocks_than_tensors_are_refused(name):
    from optimum_si.checkpoint.gguf import _check_counts
    from optimum_si.checkpoint.gguf_header import GGUFHeader

    with pytest.raises(CheckpointError, match=rf"says {name}=1,000,000,000"):
        _check_counts(Path("a.gguf"), GGUFHeader({name: 10**9}, {}, 0))
