"""``si recover``: what flags become, in place and elsewhere."""

import json
from argparse import ArgumentParser

import pytest
from support.models import same_bytes
from support.recovery import save_pruned

from optimum_si import ConfigurationError, Report, SIPruner
from optimum_si.commands.recover import RecoverCommand


TEXTS = [" ".join(f"d{document}w{word}" for word in range(60)) for document in range(120)]


@pytest.fixture
def place(tmp_path):
    save_pruned(tmp_path, TEXTS)
    return tmp_path


def execute(*words):
    parser = ArgumentParser("optimum-cli si recover")
    RecoverCommand.parse_args(parser)
    RecoverCommand.execute(None, parser.parse_args([str(word) for word in words]))


def test_in_place_and_then_elsewhere(place, capsys):
    before = SIPruner.from_pretrained(place / "pruned").model
    recipe = (place / "pruned" / "si_config.json").read_text()
    words = ["-m", place / "dense", "--num-samples", "8", "--learning-rate", "0.001", "--seed", "5"]
    execute(place / "pruned", *words)
    found = Report.load(place / "pruned").recovery
    assert f"{found.loss_before:.4f} -> {found.loss_after:.4f}" in capsys.readouterr().out
    assert not same_bytes(SIPruner.from_pretrained(place / "pruned").model, before)
    # What pruned the model is still said as it was.
    assert json.loads((place / "pruned" / "si_config.json").read_text()) == json.loads(recipe)
    execute(place / "pruned", "-m", place / "dense", "--num-samples", "8", "--epochs", "2", "-o", place / "out")
    again = Report.load(place / "out").recovery
    assert (again.epochs, again.drawn, found.drawn) == (2, 16, 8)
    assert [step for step in Report.load(place / "out").steps if "by itself" in step][1:]


def test_other_text_is_drawn_by_what_is_said_of_it(place):
    (place / "other.jsonl").write_text("\n".join(json.dumps({"words": text}) for text in TEXTS), encoding="utf-8")
    words = ["-m", place / "dense", "--num-samples", "6", "--sequence-length", "16", "-o", place / "out"]
    execute(place / "pruned", "--dataset", place / "other.jsonl", "--column", "words", *words)
    found = Report.load(place / "out").recovery
    assert (found.windows, found.tokens) == (6, 6 * 16)


def test_a_hub_id_needs_an_output():
    with pytest.raises(ConfigurationError, match="'me/sparse' is no local folder: say with -o"):
        execute("me/sparse")


def test_a_full_output_is_left_alone(place):
    with pytest.raises(Exception, match="exists and is not empty"):
        execute(place / "pruned", "-m", place / "dense", "-o", place / "dense")
