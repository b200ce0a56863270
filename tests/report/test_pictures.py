"""Pictures: which there are, and that they show something."""

from dataclasses import replace

import matplotlib
import matplotlib.image
import numpy
import pytest
from support.example_reports import example

from optimum_si import CheckpointError, PictureError
from optimum_si.report import Report, draw, write_report
from optimum_si.report.series import layer_groups, score_histogram


ALL = ["importance.png", "layers.png", "blocks.png", "singular-values.png", "scales.png"]
PLAIN = ["importance.png", "layers.png", "singular-values.png"]


def old(report: Report) -> Report:
    """As an earlier version would have written it."""
    blocks = [
        replace(
            block,
            importance=None,
            layers=[replace(layer, scale_p10=None, scale_p90=None) for layer in block.layers],
        )
        for block in report.blocks
    ]
    return replace(report, blocks=blocks, spectrum=None)


@pytest.mark.parametrize("report, names", [
    (example(), ALL),
    (example(1), ALL),
    (example(60), ALL),
    (example(induction=False), PLAIN),
    (old(example()), ["layers.png", "blocks.png", "scales.png"]),
    (Report("prune", "wanda", "50%", False), []),
], ids=["induced", "one block", "420 layers", "plain", "old", "empty"])  # fmt: skip
def test_what_has_something_to_show_is_drawn(tmp_path, report, names):
    paths = draw(report, tmp_path / "new")
    assert [path.name for path in paths] == names
    for path in paths:
        pixels = (matplotlib.image.imread(path)[..., :3] * 255).astype(int)
        assert pixels.shape[0] > 500 and pixels.shape[1] > 800
        assert len(numpy.unique(pixels @ [65_536, 256, 1])) > 30, "not blank"
        assert (pixels[:, [0, -1]] == 255).all(), "nothing runs over the edge"


def test_drawing_leaves_other_files_and_the_users_settings(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with matplotlib.rc_context({"font.size": 30, "axes.grid": True}):
        before = dict(matplotlib.rcParams)
        draw(example(), tmp_path)
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "README.md").read_text() == "mine"


def test_names_with_signs_of_mathematics_are_drawn(tmp_path):
    draw(example(prefix="$layers_{$"), tmp_path)


def test_layers_are_shown_one_by_one_until_they_are_too_many():
    few, many = layer_groups(example(4)), layer_groups(example(60))
    assert [len(group.layers) for group in few] == [1] * 28
    assert [group.label for group in few if group.starts_block] == ["0", "1", "2", "3"]
    assert [len(group.layers) for group in many] == [7] * 60
    assert many[0].sparsity == 0.5
    assert many[0].error_after == pytest.approx(0.04)
    assert many[0].scales == pytest.approx((0.5, 0.8, 1, 1.25, 2.25))


def test_a_plain_block_counts_as_unchanged():
    report = example(2)
    first, second = report.blocks
    plain = replace(second, importance=replace(second.importance, after=None))
    both = score_histogram(replace(report, blocks=[first, plain]))
    expected = [(new + old) / 2 for new, old in zip(first.importance.after, first.importance.before, strict=True)]
    assert both.after == pytest.approx(expected)
    assert score_histogram(example(induction=False)).after is None


def test_a_report_replaces_an_earlier_one(tmp_path):
    folder = tmp_path / "report"
    write_report(example(), folder, "model")
    files = write_report(example(induction=False), folder, "model")
    assert sorted(files) == sorted(folder.iterdir())
    assert [path.name for path in files] == ["index.html", *PLAIN]
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


@pytest.mark.parametrize("name", ["thesis.txt", "photo.png"])
def test_a_folder_with_other_files_is_not_replaced(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(CheckpointError, match="give a new or an empty folder"):
        write_report(example(), tmp_path, "model")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_to_install_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    for write in (lambda: draw(example(), tmp_path / "x"), lambda: write_report(example(), tmp_path / "x", "model")):
        with pytest.raises(PictureError, match=r"pip install \"optimum-si\[report\]\""):
            write()
    assert not any(tmp_path.iterdir())
