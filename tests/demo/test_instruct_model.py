"""The default demo on a stand-in, by what it prints and leaves, and small on the real model."""

import re
from pathlib import Path

import pytest
from support.stand_in import save_stand_in
from transformers import AutoModelForCausalLM

from optimum_si import CalibrationError, CheckpointError, ORTSIModelForCausalLM
from optimum_si.demo import instruct_model, prose, real_model, run_demo, sparse_export
from optimum_si.demo.comparison import pattern_holds
from optimum_si.onnx.kernels import KernelsUnavailable
from optimum_si.report import Report


WORDS = "rivers carry sand past old towns while people read about the war of stars and kings in quiet rooms".split()
RECIPES = ["dense", "Wanda", "SI + Wanda", "SparseGPT", "fast"]


def prose_of(seed: int) -> list[str]:
    return [" ".join(WORDS[(seed * line + step * step) % len(WORDS)] for step in range(60)) for line in range(1, 60)]


@pytest.fixture
def stand_in(tmp_path, monkeypatch) -> Path:
    """The demo's model and texts, replaced; its folder for results is ``tmp_path / "out"``."""
    for seed, name in ((5, "calibration_text"), (7, "test_text"), (11, "other_text")):
        monkeypatch.setattr(prose, name, lambda seed=seed: prose_of(seed))
    save_stand_in(tmp_path / "stand-in", prose_of(5))
    monkeypatch.setattr(real_model, "real_model_directory", lambda: tmp_path / "stand-in")
    return tmp_path / "out"


def assert_transcript(printed: str, output: Path) -> None:
    """Rows, answers, exports and what was gained, in this order, each of them once and with numbers."""
    lines = printed.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("recipe"))
    assert lines[start].split() == "recipe articles x dense closed news x dense closed time".split()
    rows = lines[start + 2 : start + 2 + len(RECIPES)]
    assert [re.split(r"  +", row)[0] for row in rows] == RECIPES
    dense, wanda, *others = (re.split(r"  +", row)[1:] for row in rows)
    assert dense[1] == dense[4] == "1.00" and dense[2] == wanda[2] == "-"
    for cells in others:
        expected = (float(wanda[0]) - float(cells[0])) / (float(wanda[0]) - float(dense[0]))
        assert cells[2] == "-" or float(cells[2].rstrip("%")) / 100 == pytest.approx(expected, abs=0.2)
        assert re.fullmatch(r"\d+ s|\d+ min \d\d s", cells[-1])
    order = ["is in", "The same question to both", "dense:", "fast:", "On ONNX Runtime", "fast, exported:"]
    order += ["What was gained: `fast`", f"optimum-cli si report {output}", "optimum-cli si demo --embeddings"]
    places = [printed.index(f"\n{words}" if words.endswith(":") else words) for words in order]
    assert places == sorted(places)
    assert lines[-1] == "  optimum-cli si demo --embeddings" and "none makes use" not in printed
    exports = lines[next(index for index, line in enumerate(lines) if line.startswith("export")) + 2 :][:2]
    (dense_speed, dense_size, _), (speed, size, _) = ([float(n) for n in row.split()[-3:]] for row in exports)
    assert size < dense_size and min(dense_speed, speed) > 0
    gained = re.search(r"has ([\d.]+) x the size and generates ([\d.]+) x as fast", printed)
    assert gained and float(gained[1]) < 1


def assert_results(output: Path) -> None:
    report = Report.load(output)
    assert report.recovery is not None and report.recovery.steps > 0
    assert pattern_holds(AutoModelForCausalLM.from_pretrained(output), [layer.name for layer in report.layers])
    assert ORTSIModelForCausalLM.from_pretrained(output / sparse_export.SPARSE).can_generate()


@pytest.mark.slow
@pytest.mark.usefixtures("trace_cache")
def test_the_stand_in_goes_all_the_way(stand_in, capsys, monkeypatch):
    monkeypatch.setenv("SI_QUICK", "1")
    run_demo(output=stand_in)
    assert_transcript(capsys.readouterr().out, stand_in)
    assert_results(stand_in)
    assert (stand_in / sparse_export.DENSE / "model.onnx").is_file(), "a model of one's own: kept here"


@pytest.mark.slow
def test_the_real_model_goes_all_the_way(real_model_path, tmp_path, capsys):
    run_demo(output=tmp_path / "out", quick=True)
    assert_transcript(capsys.readouterr().out, tmp_path / "out")
    assert_results(tmp_path / "out")


def test_without_onnx_the_demo_ends_on_what_pruning_kept(stand_in, capsys, monkeypatch):
    monkeypatch.setattr(sparse_export, "find_spec", lambda name: None)
    run_demo(output=stand_in, quick=True)
    printed = capsys.readouterr().out
    assert 'pip install "optimum-si[onnx]"' in printed and "What was gained: `fast`" in printed
    assert "the size and generates" not in printed and "fast, exported" not in printed
    assert Report.load(stand_in).recovery is not None


def test_rows_are_printed_when_they_are_known(stand_in, capsys, monkeypatch):
    """A run that is stopped in its third recipe has shown what came before it."""

    def stopped(pruner, config, *args, **options):
        if config.method == "sparsegpt":
            raise KeyboardInterrupt
        return original(pruner, config, *args, **options)

    original = instruct_model.SIPruner.prune
    monkeypatch.setattr(instruct_model.SIPruner, "prune", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_demo(output=stand_in, quick=True)
    printed = capsys.readouterr().out
    assert [re.split(r"  +", line)[0] for line in printed.splitlines()[-3:]] == RECIPES[:3]


@pytest.mark.parametrize(
    ("missing", "error"),
    [("calibration_text", CalibrationError("no gensim: install it.")), ("model", CheckpointError("pip cannot."))],
)
def test_what_cannot_be_had_is_said_in_one_line_with_another_demo(stand_in, monkeypatch, missing, error):
    def fails():
        raise error

    place = (real_model, "real_model_directory") if missing == "model" else (prose, missing)
    monkeypatch.setattr(*place, fails)
    with pytest.raises(type(error)) as caught:
        run_demo(output=stand_in, quick=True)
    message = str(caught.value)
    assert message.startswith(str(error)) and "optimum-cli si demo --embeddings" in message and "\n" not in message
    assert not stand_in.exists()


def test_the_export_of_the_model_in_the_cache_is_made_once_for_a_version(tmp_path, monkeypatch):
    exported = []

    def export(model: Path, folder: Path, overwrite: bool) -> None:
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        exported.append(folder)

    monkeypatch.setattr(sparse_export, "export", export)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = tmp_path / "optimum-si" / "real-model-1" / "name"
    folder = sparse_export._dense_export(model, tmp_path / "out")
    assert sparse_export._dense_export(model, tmp_path / "out") == folder and exported == [folder]
    monkeypatch.setattr(sparse_export, "__version__", "9")
    assert sparse_export._dense_export(model, tmp_path / "out").parent == folder.parent and len(exported) == 2


def test_without_a_compiler_nothing_is_said_to_be_computed_without_zeros(capsys, monkeypatch):
    def fails():
        raise KernelsUnavailable("no compiler.")

    monkeypatch.setattr(sparse_export, "library_path", fails)
    assert sparse_export._have_kernels() is False
    assert "no compiler. Until then" in capsys.readouterr().out


def test_the_full_demo_calibrates_all_recipes_alike_and_recovers_in_fast_alone():
    recipes = instruct_model.Amount.of(quick=False).recipes()
    assert list(recipes) == RECIPES[1:]
    assert len({str(config.calibration) for config in recipes.values()}) == 1
    assert {config.pattern for config in recipes.values()} == {"2:4"}
    assert [name for name, config in recipes.items() if config.recovery] == ["fast"]
    assert [name for name, config in recipes.items() if config.induction] == ["SI + Wanda"]
