"""What an export holds, and what is refused."""

import json
import shutil

import numpy as np
import onnx_ir
import pytest
import torch
from support.models import inputs_of, tiny
from support.onnx_models import causal
from transformers import AutoConfig, GenerationConfig, LlamaForSequenceClassification, LlamaModel

from optimum_si import (
    CheckpointError,
    ConfigurationError,
    ExportError,
    ORTSIModel,
    ORTSIModelForCausalLM,
    SIConfig,
    perplexity,
)
from optimum_si.onnx import export, requirements
from optimum_si.onnx.exporting import export as exporting
from optimum_si.onnx.exporting import trace as tracing
from optimum_si.onnx.inspect import check, summary


pytestmark = pytest.mark.usefixtures("trace_cache")


@pytest.mark.parametrize("name", ["bert", "vit"])
def test_encoders_and_image_models_give_the_answers_of_pytorch(exported, name):
    model, inputs = tiny(name), inputs_of(name, 3)
    if name == "bert":
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        inputs["attention_mask"][0, -5:] = 0
    exported_model = ORTSIModel.from_pretrained(exported(name))
    with torch.no_grad():
        torch.testing.assert_close(exported_model(**inputs).logits, model(**inputs).logits, rtol=1e-4, atol=1e-5)


def test_masks_and_types_that_are_left_out_are_those_of_single_texts(exported):
    model, ids = ORTSIModel.from_pretrained(exported("bert")), inputs_of("bert", 2)["input_ids"]
    whole = model(ids, attention_mask=torch.ones_like(ids), token_type_ids=torch.zeros_like(ids), labels=None)
    assert torch.equal(model(ids).logits, whole.logits)


@pytest.mark.slow
def test_sequence_to_sequence_models_are_two_graphs(exported):
    model, directory = tiny("t5"), exported("t5")
    encoder, decoder = (ORTSIModel.from_pretrained(directory, file=f"{name}.onnx") for name in ("encoder", "decoder"))
    ids, started = inputs_of("t5", 3)["input_ids"], inputs_of("t5", 3)["decoder_input_ids"]
    mask = torch.ones_like(ids)
    mask[0, -6:] = 0
    hidden = encoder(ids, attention_mask=mask).last_hidden_state
    answer = decoder(decoder_input_ids=started, encoder_hidden_states=hidden, encoder_attention_mask=mask)
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask, decoder_input_ids=started).logits
    torch.testing.assert_close(answer.logits, expected, rtol=1e-3, atol=1e-4)
    assert list(answer) == ["logits", "encoder_last_hidden_state"]


def test_weights_are_stored_once(exported):
    for name in ("llama", "llama-tied", "opt"):
        model, directory = causal(name), exported(name)
        size = sum(parameter.nbytes for parameter in model.parameters())
        # Vectors may lie in the graph itself.
        assert 0.9 * size < (directory / "model.onnx.data").stat().st_size <= size, name


def test_tied_weights_stay_standard_operators_for_tensorrt(exported):
    directory = exported("llama-tied", device="tensorrt")
    graph = onnx_ir.load(directory / "model.onnx").graph
    assert {node.domain for node in graph.all_nodes()} == {""}
    size = sum(parameter.numel() * 2 for parameter in causal("llama-tied").parameters())
    assert (directory / "model.onnx.data").stat().st_size < 1.1 * size + 8192


@pytest.mark.parametrize(("values", "bound"), [("fp16", 0.02), ("int8", 0.1), ("int4", 0.5)])
def test_other_values_come_close_to_pytorch(exported, values, bound):
    model = causal("llama")
    exported_model = ORTSIModelForCausalLM.from_pretrained(exported("llama", values=values))
    ids = torch.randint(1, 40, (3, 12), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = model(ids).logits
    error = (exported_model(ids).logits.float() - expected).norm() / expected.norm()
    assert 1e-6 < error < bound
    assert exported_model.generate(ids, max_new_tokens=3, do_sample=False).shape == (3, 15)


def test_what_a_checkpoint_holds_is_carried_along(exported_pruned):
    directory = exported_pruned()
    assert SIConfig.from_pretrained(directory).pattern == "2:4"
    assert AutoConfig.from_pretrained(directory).sparsity_config["pattern"] == "2:4"
    assert GenerationConfig.from_pretrained(directory).pad_token_id == 0
    manifest = json.loads((directory / "si_onnx.json").read_text())
    assert manifest["values"] == "fp32" and set(manifest["files"]) == {"model.onnx", "model.onnx.data"}


@pytest.mark.parametrize(
    ("values", "device"), [("fp32", "cpu"), ("fp16", "tensorrt"), ("int8", "cpu"), ("int4", "cpu")]
)
@pytest.mark.slow
def test_zeros_and_patterns_are_found_whatever_stores_them(exported_pruned, exported, values, device):
    found = check(exported_pruned(values, device))
    head = [matrix for matrix in found if matrix.columns == 48 and matrix.rows == 32 and not matrix.pattern]
    sparse = [matrix for matrix in found if matrix not in head]
    assert len(head) == 1 and len(sparse) >= 8
    assert all(matrix.pattern == "2:4" and 0.5 <= matrix.zeros < 0.65 for matrix in sparse)
    assert all((matrix.usable_by == "TensorRT") == (values in ("fp32", "fp16")) for matrix in sparse)
    assert "2:4" in summary(found)
    dense = check(exported("llama", values=values, device=device))
    assert not any(matrix.pattern or matrix.usable_by for matrix in dense)


def test_patterns_are_told_along_the_inputs_not_the_outputs():
    from optimum_si.onnx.matrices import Matrix

    values = np.ones((8, 4))
    values[[0, 1, 4, 5]] = 0
    assert Matrix("m", "MatMul", values, "float32").holds(2, 4)
    assert not Matrix("m", "MatMul", values.T, "float32").holds(2, 4)
    values[[0, 1, 2, 3, 4, 5, 6, 7]] = [[0], [0], [0], [0], [1], [1], [1], [1]]
    matrix = Matrix("m", "MatMul", values, "float32")
    assert matrix.holds(4, 8) and not matrix.holds(2, 4) and not matrix.holds(3, 5)


@pytest.mark.parametrize("values", ["int8", "int4"])
def test_a_head_that_is_tied_to_the_embeddings_is_quantized_too(exported, values):
    found = check(exported("llama-tied", values=values))
    assert [(matrix.rows, matrix.columns, matrix.stored) for matrix in found][-1] == (32, 48, values)
    model = ORTSIModelForCausalLM.from_pretrained(exported("llama-tied", values=values))
    ids = torch.randint(1, 40, (3, 12), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = causal("llama-tied")(ids).logits
    assert (model(ids).logits - expected).norm() / expected.norm() < (0.1 if values == "int8" else 0.5)


def test_the_model_is_left_as_it_was(exported):
    model = causal("llama").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ExportError):
        export(model, exported("llama"), values="fp16", overwrite=True, opset=99)
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"device": "npu"}, ConfigurationError, "device='npu' is unknown; accepted: 'cpu', 'cuda', 'tensorrt'"),
        ({"values": "int2"}, ConfigurationError, "values='int2' is unknown; accepted: 'fp32', 'fp16', 'int8', 'int4'"),
        ({"device": "tensorrt", "values": "int4"}, ExportError, "TensorRT prunes 2:4 in fp16"),
        ({"opset": 99}, ExportError, "opset=99: the exporter writes 18 to 23"),
        ({"opset": 1}, ConfigurationError, "opset=1: expected a whole number of at least 18"),
    ],
)
def test_wrong_choices_are_refused_before_any_work(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        export(causal("llama"), tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_an_existing_directory_is_kept_unless_overwritten(tmp_path):
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="overwrite"):
        export(causal("llama"), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["kept.txt"]


def test_an_export_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fails(*_):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(tracing, "_parts", fails)
    with pytest.raises(
        ExportError, match="LlamaForCausalLM cannot be exported: RuntimeError: no such operator.*optimum-onnx"
    ):
        export(causal("llama"), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, exported):
    target = tmp_path / "out"
    shutil.copytree(exported("llama"), target)
    before = (target / "model.onnx").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "write_manifest", full)
    with pytest.raises(CheckpointError, match="disk is full"):
        export(causal("llama"), target, overwrite=True)
    assert (target / "model.onnx").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_int4_of_a_layer_that_is_too_small_names_it(tmp_path):
    from support.models import _DECODER
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig(**{**_DECODER, "hidden_size": 16, "head_dim": 8, "num_hidden_layers": 1}))
    with pytest.raises(ExportError, match=r"int4 shares a scale among 32 inputs, and matrix '\S+' has only 16"):
        export(model, tmp_path / "out", values="int4")
    assert not list(tmp_path.iterdir())


def test_missing_and_old_packages_are_named(monkeypatch):
    monkeypatch.setattr(requirements, "_installed", lambda name: None if name == "onnxscript" else "99")
    with pytest.raises(ExportError, match=r'exporting needs onnxscript.*pip install "optimum-si\[onnx\]"'):
        requirements.require_onnx()
    monkeypatch.setattr(requirements, "_installed", lambda name: "1.0" if name == "onnx" else "99")
    with pytest.raises(ExportError, match=r"exporting needs onnx>=1.19, and 1.0 is installed"):
        requirements.require_onnx()


def test_a_graph_that_answers_otherwise_is_not_written(tmp_path, monkeypatch):
    traced = tracing.trace

    def wrong(model, *options):
        (part,) = traced(model, *options)
        norm = next(value for value in part.graph.graph.initializers.values() if len(value.shape) == 1)
        norm.const_value = onnx_ir.tensor(np.full(norm.shape.numpy(), 3.0, np.float32), name=norm.name)
        return [part]

    monkeypatch.setattr(tracing, "trace", wrong)
    with pytest.raises(ExportError, match="does not answer as the model does .* it was not written"):
        export(causal("llama"), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["llama", "qwen2", "opt"])
def test_caches_are_not_turned_and_turned_back(exported, name):
    graph = onnx_ir.load(exported(name) / "model.onnx").graph
    readers = [use.node for value in graph.outputs[1:] for use in value.uses()]
    turned = [tuple(node.attributes["perm"].as_ints()) for node in readers if node.op_type == "Transpose"]
    assert (0, 2, 1, 3) not in turned


def test_only_round_trips_are_dropped():
    from optimum_si.onnx.exporting.round_trips import drop_round_trips

    def model(heads):
        text = f"""
            <ir_version: 10, opset_import: ["" : 20]>
            g (float[b, {heads}, t, 8] x) => (float[b, t, 4, 8] y)
            <int64[3] merged = {{0, 0, -1}}, int64[4] split = {{0, 0, 4, -1}}> {{
                a = Transpose <perm = [0, 2, 1, 3]> (x)
                b = Reshape (a, merged)
                c = Reshape (b, split)
                d = Transpose <perm = [0, 2, 3, 1]> (c)
                y = Relu (d)
            }}
        """
        return onnx_ir.from_onnx_text(text)

    whole = model(4)
    assert drop_round_trips(whole) == 1
    node, relu = whole.graph
    assert node.op_type == "Transpose" and tuple(node.attributes["perm"].as_ints()) == (0, 1, 3, 2)
    assert relu.inputs[0] is node.outputs[0]
    for other in (model(2), model("h")):
        assert drop_round_trips(other) == 0 and len(list(other.graph)) == 5


def test_a_state_instead_of_a_cache_is_refused_by_name(tmp_path):
    from transformers import MambaConfig, MambaForCausalLM

    model = MambaForCausalLM(MambaConfig(vocab_size=48, hidden_size=32, num_hidden_layers=2, state_size=4))
    with pytest.raises(ExportError, match="MambaForCausalLM keeps a state instead of keys and values"):
        export(model, tmp_path / "out", values="int8")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [LlamaModel, LlamaForSequenceClassification])
@pytest.mark.slow
def test_decoders_that_do_not_generate_have_no_cache(tmp_path, kind):
    config = causal("llama-shallow").config
    config.pad_token_id = 0
    model = kind(config).eval()
    export(model, tmp_path / "out")
    exported_model, ids = ORTSIModel.from_pretrained(tmp_path / "out"), torch.tensor([[1, 2, 3, 4], [4, 5, 6, 7]])
    with torch.no_grad():
        expected = model(ids)[0]
    answer = exported_model(ids)
    assert len(answer) == 1 and model.config.use_cache
    torch.testing.assert_close(next(iter(answer.values())), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"input_ids": torch.tensor([1, 2])}, r"input_ids is int64 \[2\]: expected int64 \[batch_size, sequence_len"),
        ({"input_ids": torch.ones(1, 2)}, r"input_ids is float32 \[1, 2\]: expected int64"),
        ({"input_ids": torch.tensor([[-1, 2]])}, "token ids reach from -1 to 2, and the model has ids from 0 to"),
        (
            {"attention_mask": torch.ones(1, 5, dtype=torch.int64)},
            r"input_ids has sequence_length=2, and attention_mask has 5",
        ),
        ({"atention_mask": torch.ones(1, 2)}, "atention_mask is given, and the exported graph has no such input"),
        ({"labels": torch.ones(1)}, "labels is given, .*: compute the loss from the logits"),
        ({"return_dict": False}, "return_dict is given"),
    ],
)
def test_wrong_inputs_of_an_encoder_are_refused(exported, inputs, message):
    model = ORTSIModel.from_pretrained(exported("bert"))
    with pytest.raises(ConfigurationError, match=message):
        model(**{"input_ids": torch.tensor([[1, 2]]), **inputs})


@pytest.mark.parametrize("wrong", [None, "", 3])
def test_what_is_no_model_is_refused(tmp_path, wrong):
    with pytest.raises(CheckpointError, match="is no model: give a directory"):
        export(wrong, tmp_path / "out")


@pytest.mark.slow
def test_configs_say_what_the_graph_computes_in_and_no_tokenizer_is_invented(tmp_path):
    causal("llama-shallow").to(torch.bfloat16).save_pretrained(tmp_path / "model")
    for values, dtype in (("fp32", torch.float32), ("fp16", torch.float16)):
        directory = export(tmp_path / "model", tmp_path / values, values=values)
        assert AutoConfig.from_pretrained(directory).dtype == dtype
        assert not [file.name for file in directory.iterdir() if "token" in file.name]
        assert json.loads((directory / "si_onnx.json").read_text())["verified"] is True


def test_activations_that_fp16_cannot_hold_are_found(tmp_path):
    model = causal("llama-shallow")
    for name in ("gate_proj", "up_proj"):
        getattr(model.model.layers[0].mlp, name).weight.data.mul_(3000)
    with pytest.raises(ExportError, match="gives NaN or infinity for LlamaForCausalLM with values='fp16'"):
        export(model, tmp_path / "out", values="fp16")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["[1]", "{bad"])
def test_a_damaged_generation_config_is_found(tmp_path, content):
    causal("llama").save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").write_text(content)
    with pytest.raises(CheckpointError, match="generation_config.json' cannot be read .* delete it"):
        export(tmp_path / "model", tmp_path / "out")


def test_weights_that_fp16_cannot_hold_are_named(tmp_path):
    model = causal("llama")
    model.model.layers[0].mlp.down_proj.weight.data[0, 0] = 1e5
    with pytest.raises(ExportError, match="'model.layers.0.mlp.down_proj.weight' does not fit"):
        export(model, tmp_path / "out", values="fp16")


def test_a_checkpoint_is_never_replaced_by_its_own_export(tmp_path):
    causal("llama").save_pretrained(tmp_path / "model")
    with pytest.raises(CheckpointError, match="is or holds .*which this run reads"):
        export(tmp_path / "model", tmp_path / "model", overwrite=True)
    assert (tmp_path / "model" / "model.safetensors").is_file()


@pytest.fixture(scope="module")
def trained():
    """A Llama that has learned to count with some mistakes, and windows of such counting."""
    from support.models import _DECODER
    from transformers import LlamaConfig, LlamaForCausalLM

    generator = torch.Generator().manual_seed(0)
    starts, mistakes = (torch.randint(0, 48, shape, generator=generator) for shape in ((2048, 1), (2048, 24)))
    wrong = torch.rand((2048, 24), generator=generator) < 0.2
    windows = torch.where(wrong, mistakes, (starts + torch.arange(24)) % 48)
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**{**_DECODER, "hidden_size": 64, "intermediate_size": 128, "head_dim": 16}))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for batch in windows[64:].split(16):
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), windows[:64]


@pytest.mark.parametrize(("values", "size", "quality"), [("int8", 0.30, 1.01), ("int4", 0.20, 1.1)])
@pytest.mark.slow
def test_quantized_weights_are_small_and_keep_the_perplexity(tmp_path, trained, values, size, quality):
    model, windows = trained
    dense = perplexity(model, texts=windows, progress=False)
    export(model, tmp_path / "out", values=values)
    linear = sum(module.weight.nbytes for module in model.modules() if isinstance(module, torch.nn.Linear))
    nodes = [node for node in onnx_ir.load(tmp_path / "out" / "model.onnx").graph.all_nodes() if "Mat" in node.op_type]
    stored = {value.name: value.const_value.nbytes for node in nodes for value in node.inputs if value.const_value}
    assert 0.1 * linear < sum(stored.values()) <= size * linear
    found = perplexity(ORTSIModelForCausalLM.from_pretrained(tmp_path / "out"), texts=windows, progress=False)
    assert dense < 24 and dense / quality < found < dense * quality


def test_a_kind_of_cache_that_the_model_asks_for_is_not_the_graphs(tmp_path):
    model = causal("llama")
    model.generation_config.cache_implementation = "static"
    path = export(model, tmp_path / "out")
    ids = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        torch.testing.assert_close(
            ORTSIModelForCausalLM.from_pretrained(path)(ids).logits, model(ids).logits, rtol=1e-3, atol=1e-4
        )
    assert model.generation_config.cache_implementation == "static"


def test_a_classifier_without_a_padding_token_says_which_field(tmp_path):
    config = tiny("llama").config
    config.pad_token_id = None
    with pytest.raises(ExportError, match="config.pad_token_id is None.*set it to the tokenizer's"):
        export(LlamaForSequenceClassification(config).eval(), tmp_path / "out")
