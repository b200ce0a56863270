"""``export``, ``check`` and ``benchmark`` as a user runs them."""

import json

import pytest
import torch
from optimum.commands.optimum_cli import main
from support.models import _DECODER, VOCABULARY, calibration, prune
from support.onnx_models import causal, genai_tokens
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from optimum_si import CheckpointError, ConfigurationError, ExportError, ORTSIModelForCausalLM
from optimum_si.onnx import export
from optimum_si.onnx.benchmark import benchmark
from optimum_si.onnx.inspect import check
from optimum_si.onnx.speeds import plot, summary


pytestmark = pytest.mark.usefixtures("trace_cache")


def run(monkeypatch, *words) -> int:
    monkeypatch.setattr("sys.argv", ["optimum-cli", "si", *map(str, words)])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture
def checkpoint(exported_pruned):
    """A pruned checkpoint with a tokenizer of words w1 ... w47."""
    directory = exported_pruned().parent / "checkpoint"
    if not (directory / "tokenizer.json").is_file():
        vocabulary = {"<pad>": 0, **{f"w{number}": number for number in range(1, VOCABULARY)}}
        words = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
        words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>").save_pretrained(directory)
    return directory


def test_export_evaluates_and_check_finds_the_pattern(monkeypatch, capsys, tmp_path, checkpoint):
    text = tmp_path / "held-out.txt"
    text.write_text(" ".join(f"w{1 + number * number % 40}" for number in range(400)))
    words = ("export", checkpoint, tmp_path / "out", "--evaluate", text, "--max-windows", 1)
    assert run(monkeypatch, *words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"wrote {tmp_path / 'out'} (0.")
    assert lines[1].startswith("perplexity: ") and lines[1].endswith("computed by ONNX Runtime")
    assert (tmp_path / "out" / "tokenizer.json").is_file()

    assert run(monkeypatch, "check", tmp_path / "out") == 0
    assert "8 of 9 matrices are sparse; 8 are 2:4." in capsys.readouterr().out
    assert run(monkeypatch, "check", tmp_path / "out", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert sum(matrix["pattern"] == "2:4" for matrix in found) == 8

    assert run(monkeypatch, *words) == 1
    assert "error: output directory" in capsys.readouterr().err


@pytest.mark.slow
def test_genai_gives_the_same_tokens(monkeypatch, capsys, tmp_path, checkpoint):
    torch.manual_seed(0)
    config = LlamaConfig(**{**_DECODER, "head_dim": 16, "intermediate_size": 64})
    pruner = prune(LlamaForCausalLM(config), "wanda", calibration("llama"), pattern="2:4", induction=None)
    pruner.tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    pruner.save_pretrained(tmp_path / "pruned")
    assert run(monkeypatch, "export", tmp_path / "pruned", tmp_path / "out", "--runtime", "genai") == 0
    prompt = torch.tensor([[5, 17, 3, 41]])
    ours = ORTSIModelForCausalLM.from_pretrained(export(tmp_path / "pruned", tmp_path / "ours"))
    expected = ours.generate(prompt, max_new_tokens=12, min_new_tokens=12, do_sample=False)
    assert genai_tokens(tmp_path / "out", prompt, 16) == expected[0].tolist()
    assert sum(matrix.pattern == "2:4" for matrix in check(tmp_path / "out")) >= 8


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"values": "int8"},
            ConfigurationError,
            "GenAI writes fp32, fp16, int4 for cpu and cuda",
        ),
        ({"device": "tensorrt"}, ConfigurationError, "use runtime='onnxruntime' for others"),
        ({"model": "llama"}, ExportError, "cannot compute the exported graph .* head_size"),
        ({}, ExportError, "builder of ONNX Runtime GenAI failed on .* use runtime='onnxruntime' for the rest"),
    ],
)
@pytest.mark.slow
def test_what_genai_does_not_know_is_named(tmp_path, checkpoint, options, error, message):
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    with pytest.raises(error, match=message):
        model = causal(options.pop("model", "opt"))
        export(model, tmp_path / "out", runtime="genai", tokenizer=tokenizer, **options)
    with pytest.raises(ConfigurationError, match="runtime='mlx' is unknown"):
        export(causal("opt"), tmp_path / "out", runtime="mlx")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_benchmark_measures_checkpoints_and_exports_side_by_side(monkeypatch, capsys, tmp_path, checkpoint, exported):
    sizes = ("--prompt", 8, "--new-tokens", 4, "--repeats", 2, "--threads", 1)
    chart = tmp_path / "speed.png"
    words = ("benchmark", checkpoint, checkpoint.parent / "fp32-cpu", *sizes, "--chart", chart, "--json")
    assert run(monkeypatch, *words) == 0
    speeds = json.loads(capsys.readouterr().out)
    assert [speed["runtime"] for speed in speeds] == ["PyTorch", "ONNX Runtime"]
    for speed in speeds:
        assert min(speed["megabytes"], speed["load_seconds"], speed["prefill"], speed["decode"]) > 0
        assert speed["peak_megabytes"] >= 0
    assert chart.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_encoders_have_no_decoding(tmp_path, exported):
    (speed,) = benchmark([exported("bert")], prompt=8, repeats=1)
    assert speed.decode is None and speed.prefill > 0
    assert "bert" in summary([speed]) and "(1.00 x)" in summary([speed])
    plot([speed], tmp_path / "speed.svg")
    assert (tmp_path / "speed.svg").stat().st_size > 1000


@pytest.mark.slow
def test_what_cannot_be_measured_is_said_before_anything_runs(tmp_path, exported):
    with pytest.raises(CheckpointError, match="holds neither a checkpoint nor an export"):
        benchmark([exported("llama"), tmp_path])
    with pytest.raises(ConfigurationError, match="prompt=300 and new_tokens=32 need 333 positions.* has 192"):
        benchmark([exported("llama")], prompt=300)
    with pytest.raises(ConfigurationError, match="repeats=0: expected a whole number of at least 1"):
        benchmark([exported("llama")], repeats=0)


@pytest.mark.slow
def test_an_error_in_a_process_of_its_own_comes_back(tmp_path, exported):
    (tmp_path / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="cannot be read as a graph"):
        benchmark([tmp_path], repeats=1)
