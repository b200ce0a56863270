"""``examples/own_data.py`` runs as written."""

import json

from transformers import AutoModelForCausalLM


def test_a_column_of_text_and_tokenized_data_both_calibrate(run, checkpoint, tmp_path):
    data = tmp_path / "notes.jsonl"
    rows = [{"title": "a", "body": f"def number_{number}(): return {number}\n" * 3} for number in range(40)]
    data.write_text("\n".join(map(json.dumps, rows)))
    finished = run("own_data.py", checkpoint, data, "body", tmp_path / "out")
    first, second = finished.stdout.split("from tokens")
    assert "calibration: 8 windows, 256 tokens" in first and "sparsity: 50.00%" in first
    assert "calibration: 8 windows" in second and "sparsity: 50.00%" in second
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.sparsity_config["pattern"] == "2:4"


def test_wrong_usage_shows_the_command(run):
    assert "usage: python examples/own_data.py MODEL" in run("own_data.py", "model", code=1).stderr
