"""Every kind of model, traced for real: no test here uses the traces of others, but to compare them."""

import json
from pathlib import Path

import onnx_ir
import pytest
from support.models import tiny
from support.onnx_models import CAUSAL, causal
from transformers.exporters import OnnxExporter

from optimum_si.onnx import export


def model_of(name: str):
    return causal(name) if name in CAUSAL else tiny(name)


@pytest.fixture
def traced(monkeypatch) -> list[str]:
    """Classes of what the exporter of transformers has traced in this test."""
    names = []
    export_program = OnnxExporter.export_program

    def noted(self, model, inputs, config):
        names.append(type(model).__name__)
        return export_program(self, model, inputs, config)

    monkeypatch.setattr(OnnxExporter, "export_program", noted)
    return names


def operators(directory: Path) -> dict[str, list[str]]:
    return {
        file.name: [node.op_type for node in onnx_ir.load(file).graph.all_nodes()]
        for file in sorted(directory.glob("*.onnx"))
    }


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("llama-shallow", ["LlamaForCausalLM"]),
        ("bert", ["BertForMaskedLM"]),
        ("vit", ["ViTForImageClassification"]),
        ("t5", ["T5Stack", "T5ForConditionalGeneration"]),
    ],
)
def test_each_kind_of_model_is_traced_and_answers_as_pytorch(tmp_path, traced, traced_once, name, parts):
    export(model_of(name), tmp_path / "real")
    assert traced == parts
    assert json.loads((tmp_path / "real" / "si_onnx.json").read_text())["verified"] is True

    with traced_once():
        for directory in ("once", "again"):
            export(model_of(name), tmp_path / directory)
    for directory in ("once", "again"):
        assert operators(tmp_path / directory) == operators(tmp_path / "real")
