"""``examples/deploy_onnx.py`` runs as written, and every way to run the model gives the same tokens."""

import pytest


pytest.importorskip("onnxruntime")


def test_three_ways_to_generate_agree(run, checkpoint, tmp_path):
    finished = run("deploy_onnx.py", checkpoint, tmp_path / "onnx", "def f")
    assert "all three give the same tokens: True" in finished.stdout
    assert (tmp_path / "onnx" / "model.onnx").is_file()
