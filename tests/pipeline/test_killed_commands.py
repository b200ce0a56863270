"""Saves, exports and reports that are killed at their steps: what was there, or what is new, never between."""

import shutil

import pytest
from support.kills import killed_at, script_killed_at
from support.models import calibration, prune
from support.onnx_models import causal

from optimum_si.report import Report, write_report


RECIPE = {"pattern": "2:4", "induction": None}
#: Kills among the steps of each, evenly.
KILLS = 20


def pruned(method):
    return prune(causal("llama"), method, calibration("llama"), **RECIPE)


def saving(folder, method):
    pruner = pruned(method)
    return lambda: pruner.save_pretrained(folder, overwrite=True)


def reporting(folder, method):
    source = folder.parent / f"pruned by {method}"
    pruned(method).save_pretrained(source)
    return lambda: write_report(Report.load(source), folder, method)


def contents(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("action", [saving, reporting])
def test_a_kill_leaves_the_old_or_the_new_result(tmp_path, action):
    out, kept = tmp_path / "out", tmp_path / "kept"
    action(out, "magnitude")()
    shutil.copytree(out, kept)
    old = contents(out)
    again = action(out, "wanda")
    killed, steps = killed_at(0, again)
    new = contents(out)
    assert not killed and steps > KILLS and new != old
    found = {"old": 0, "new": 0}
    for step in range(1, steps, max(steps // KILLS, 1)):
        shutil.rmtree(out)
        shutil.copytree(kept, out)
        killed, _ = killed_at(step, again)
        there = contents(out)
        assert there in (old, new), step
        found["new" if there == new else "old"] += 1
    assert found["old"] > KILLS // 2
    # And the next run clears up what the killed ones left.
    assert not killed_at(0, again)[0]
    assert contents(out) == new
    assert not [file for file in tmp_path.iterdir() if file.name not in ("out", "kept") and "pruned" not in file.name]


@pytest.mark.slow
def test_a_killed_export_leaves_the_old_or_the_new_one(tmp_path):
    sources = {method: tmp_path / f"pruned by {method}" for method in ("magnitude", "wanda")}
    for method, source in sources.items():
        pruned(method).save_pretrained(source)
    out, kept = tmp_path / "out", tmp_path / "kept"

    def export(method, step=0):
        words = f"export({str(sources[method])!r}, {str(out)!r}, overwrite=True)"
        return script_killed_at(step, f"from optimum_si.onnx import export\n{words}", tmp_path)

    export("magnitude")
    shutil.copytree(out, kept)
    old = contents(out)
    killed, steps = export("wanda")
    new = contents(out)
    assert not killed and steps > KILLS and new != old
    for step in range(steps, steps // 2, -(steps // 6)):  # it writes in its second half
        shutil.rmtree(out)
        shutil.copytree(kept, out)
        assert export("wanda", step)[0]
        assert contents(out) in (old, new), step
    export("wanda")
    assert contents(out) == new and not [file for file in tmp_path.iterdir() if file.name.startswith("out.")]
