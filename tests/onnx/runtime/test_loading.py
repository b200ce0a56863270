"""Opening an export: from a directory or the Hub, and what is damaged, missing or not installed."""

import shutil

import pytest
import torch
from support.onnx_models import causal, prompts

from optimum_si import CheckpointError, ConfigurationError, ORTSIModelForCausalLM, ProviderError
from optimum_si.onnx import providers, requirements
from optimum_si.onnx.inspect import check


@pytest.fixture
def copy(tmp_path, exported):
    return shutil.copytree(exported("llama"), tmp_path / "copy")


@pytest.mark.slow
def test_a_directory_that_is_no_export_is_said_to_be_none(tmp_path, exported):
    causal("llama").save_pretrained(tmp_path / "checkpoint")
    with pytest.raises(CheckpointError, match=r"holds no model.onnx \(it has .*model.safetensors.*si export"):
        ORTSIModelForCausalLM.from_pretrained(tmp_path / "checkpoint")
    with pytest.raises(CheckpointError, match="has no folder 'onnx'"):
        ORTSIModelForCausalLM.from_pretrained(exported("llama"), subfolder="onnx")
    with pytest.raises(CheckpointError, match="holds no .onnx file"):
        check(tmp_path)


def test_a_place_that_is_neither_a_directory_nor_on_the_hub_is_an_error():
    with pytest.raises(CheckpointError, match="is no directory, and the Hub gives no such repository"):
        ORTSIModelForCausalLM.from_pretrained("nobody/nothing")


@pytest.mark.parametrize("file", ["model.onnx", "model.onnx.data"])
def test_a_truncated_file_is_found(copy, file):
    content = (copy / file).read_bytes()
    (copy / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=rf"{file}' has \d+ bytes and was written with {len(content)}"):
        ORTSIModelForCausalLM.from_pretrained(copy, verify=False)
    with pytest.raises(CheckpointError, match="cut off"):
        check(copy)


def test_a_damaged_file_is_found(copy):
    content = bytearray((copy / "model.onnx.data").read_bytes())
    content[1000] ^= 1
    (copy / "model.onnx.data").write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        ORTSIModelForCausalLM.from_pretrained(copy)
    ORTSIModelForCausalLM.from_pretrained(copy, verify=False)


def test_a_missing_file_is_found(copy):
    (copy / "model.onnx.data").unlink()
    with pytest.raises(CheckpointError, match="model.onnx.data' is missing"):
        ORTSIModelForCausalLM.from_pretrained(copy)


def test_a_file_that_is_no_graph_is_found_without_a_manifest_too(copy):
    (copy / "si_onnx.json").unlink()
    (copy / "model.onnx").write_bytes(b"no graph at all")
    with pytest.raises(CheckpointError, match="cannot be read as a graph"):
        ORTSIModelForCausalLM.from_pretrained(copy)
    with pytest.raises(CheckpointError, match="cannot be read as a graph"):
        check(copy)


def test_an_empty_graph_is_found_without_a_manifest_too(copy):
    (copy / "si_onnx.json").unlink()
    (copy / "model.onnx").write_bytes(b"")
    with pytest.raises(CheckpointError, match="cannot be read as a graph: it has no nodes"):
        check(copy)


@pytest.mark.parametrize("content", ["[1]", "{bad"])
def test_a_damaged_generation_config_is_found(copy, content):
    (copy / "generation_config.json").write_text(content)
    with pytest.raises(CheckpointError, match="generation_config.json' cannot be read"):
        ORTSIModelForCausalLM.from_pretrained(copy)


@pytest.mark.parametrize(
    "options", [{"providers": []}, {"providers": "CPUExecutionProvider"}, {"session_options": {"threads": 1}}]
)
def test_providers_and_options_of_another_type_are_refused(exported, options):
    with pytest.raises(ConfigurationError, match=rf"{next(iter(options))}=.*: expected"):
        ORTSIModelForCausalLM.from_pretrained(exported("llama"), **options)


@pytest.mark.parametrize("content", ["{", "[]", '{"files": [1]}', '{"files": {"model.onnx": {}}}'])
def test_a_damaged_manifest_is_found(copy, content):
    (copy / "si_onnx.json").write_text(content)
    with pytest.raises(CheckpointError, match="si_onnx.json' cannot be read"):
        ORTSIModelForCausalLM.from_pretrained(copy)


def test_an_export_loads_from_a_folder_of_a_hub_repository(local_hub, exported):
    files = {f"onnx/{file.name}": file.read_bytes() for file in exported("llama").iterdir()}
    local_hub.repositories["user/sparse"] = {**files, "model.safetensors": b"not wanted"}
    model = ORTSIModelForCausalLM.from_pretrained("user/sparse", subfolder="onnx")
    inputs = prompts(1, 5)
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, causal("llama")(**inputs).logits, rtol=1e-4, atol=1e-4)
    assert not any("model.safetensors" in request for request in local_hub.requests)


def test_devices_become_providers(monkeypatch, tmp_path):
    import onnxruntime

    names = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    assert providers() == providers("cpu") == ["CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    assert providers("cuda:1") == [("CUDAExecutionProvider", {"device_id": 1}), "CPUExecutionProvider"]
    (name, options), *others = providers("tensorrt", cache_dir=tmp_path)
    assert name == names[0] and others == providers("cuda")
    assert options["trt_sparsity_enable"] and options["trt_fp16_enable"] and options["trt_engine_cache_enable"]
    dense = providers("tensorrt", sparsity=False, cache_dir=tmp_path)[0][1]
    assert not dense["trt_sparsity_enable"]
    assert dense["trt_engine_cache_path"] != options["trt_engine_cache_path"]


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_provider_that_is_not_installed_is_named_with_what_to_install(device, exported):
    with pytest.raises(ProviderError, match=rf"device='{device}' needs .*ExecutionProvider.*optimum-si\[onnx-gpu\]"):
        providers(device)
    with pytest.raises(ProviderError, match="onnx-gpu"):
        ORTSIModelForCausalLM.from_pretrained(exported("llama"), device=device)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "npu"}, "device='npu' is unknown; accepted: 'cpu', 'cuda', 'tensorrt'"),
        ({"device": "cpu:1"}, "expected 'cpu', 'cuda', 'cuda:1' or 'tensorrt'"),
        ({"device": "cpu", "sparsity": True}, "sparsity=True applies to device='tensorrt' only"),
        ({"device": "cpu", "cache_dir": "x"}, "cache_dir='x' applies to device='tensorrt' only"),
    ],
)
def test_options_that_a_device_does_not_have_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        providers(**options)


def test_a_device_and_providers_contradict_each_other(exported):
    with pytest.raises(ConfigurationError, match="give one of them"):
        ORTSIModelForCausalLM.from_pretrained(exported("llama"), device="cpu", providers=["CPUExecutionProvider"])


def test_both_builds_of_onnx_runtime_at_once_are_found(monkeypatch):
    monkeypatch.setattr(requirements, "_installed", lambda name: "1.30")
    with pytest.raises(ProviderError, match="onnxruntime 1.30 and onnxruntime-gpu 1.30 are installed"):
        requirements.require_runtime()
    monkeypatch.setattr(requirements, "_installed", lambda name: "1.2" if name == "onnxruntime" else None)
    with pytest.raises(ProviderError, match="onnxruntime>=1.21 is needed, and 1.2 is installed"):
        requirements.require_runtime()
