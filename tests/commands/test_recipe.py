"""The flags of prune and induce become an SIConfig: what is given overrides the file, the file overrides defaults."""

import json
import os
import re
from argparse import ArgumentParser, Namespace
from dataclasses import asdict

import pytest

from optimum_si import ConfigurationError, RecoveryConfig, SIConfig
from optimum_si.commands.induce import InduceCommand
from optimum_si.commands.prune import PruneCommand
from optimum_si.commands.recipe import config_from_args


def parse(*words: str, command=PruneCommand) -> Namespace:
    parser = ArgumentParser("optimum-cli si")
    command.parse_args(parser)
    return parser.parse_args(["-m", "model", "-o", "out", *words])


def recipe(*words: str, command=PruneCommand) -> SIConfig:
    return config_from_args(parse(*words, command=command))


def test_no_flags_give_the_default_recipe():
    assert recipe("--dataset", "c4") == SIConfig(calibration={"dataset": "c4"})


@pytest.mark.parametrize("words, expected", [
    ("--method wanda --sparsity 0.7", {"method": "wanda", "sparsity": 0.7}),
    ("--pattern 2:4", {"pattern": "2:4"}),
    ("--include *.mlp.* *.q_proj --exclude *.0.*", {"include": ["*.mlp.*", "*.q_proj"], "exclude": ["*.0.*"]}),
    ("--epochs 2 --learning-rate 0.01", {"induction": {"epochs": 2, "learning_rate": 0.01}}),
    ("--no-induction", {"induction": None}),
])  # fmt: skip
def test_each_flag_sets_its_field(words, expected):
    assert recipe("--dataset", "c4", *words.split()) == SIConfig(**expected, calibration={"dataset": "c4"})


def test_calibration_flags_set_the_calibration():
    words = (
        "--dataset d --dataset-config en --split s --column c --num-samples 4 --sequence-length 64 --batch-size 2 "
        "--min-expert-tokens 3"
    )
    assert recipe(*words.split()).calibration.__dict__ == {
        "dataset": "d",
        "dataset_config": "en",
        "split": "s",
        "column": "c",
        "target_column": None,
        "num_samples": 4,
        "sequence_length": 64,
        "batch_size": 2,
        "min_expert_tokens": 3,
        "seed": 0,
    }


def test_one_seed_governs_windows_and_everything_else():
    config = recipe("--dataset", "c4", "--seed", "7")
    assert (config.seed, config.calibration.seed) == (7, 7)


@pytest.fixture
def saved(tmp_path) -> SIConfig:
    config = SIConfig(
        "wanda",
        pattern="2:4",
        exclude="*.0.*",
        induction={"epochs": 2, "initialization": "robust"},
        calibration={"num_samples": 4, "dataset": "a.txt"},
    )
    config.save_pretrained(tmp_path)
    return config


def test_a_file_or_its_folder_gives_the_recipe(saved, tmp_path):
    assert recipe("--config", str(tmp_path)) == saved
    assert recipe("--config", str(tmp_path / "si_config.json")) == saved


def test_flags_override_the_file(saved, tmp_path):
    config = recipe("--config", str(tmp_path), "--method", "magnitude", "--num-samples", "8", "--epochs", "1")
    changed = saved.to_dict() | {"method": "magnitude"}
    changed["calibration"]["num_samples"] = 8
    changed["induction"]["epochs"] = 1
    assert config == SIConfig(**changed)


def test_a_sparsity_replaces_the_pattern_of_the_file(saved, tmp_path):
    config = recipe("--config", str(tmp_path), "--sparsity", "0.6")
    assert (config.sparsity, config.pattern) == (0.6, None)


def test_the_file_decides_about_induction_until_a_flag_does(tmp_path):
    SIConfig(induction=None, calibration={"dataset": "c4"}).save_pretrained(tmp_path)
    assert recipe("--config", str(tmp_path)).induction is None
    assert recipe("--config", str(tmp_path), "--epochs", "1").induction.epochs == 1
    SIConfig(induction=True, calibration={"dataset": "c4"}).save_pretrained(tmp_path)
    assert recipe("--config", str(tmp_path), "--no-induction").induction is None


@pytest.mark.parametrize("content, message", [
    ("{", "Expecting property name"),
    ("[]", "expected a JSON object, found list"),
    (json.dumps({"sparcity": 0.5}), "SIConfig has no 'sparcity'"),
    (json.dumps({"sparsity": 3}), "sparsity=3: expected a number"),
    (b"\xff", "codec can't decode"),
])  # fmt: skip
def test_a_bad_file_is_named(tmp_path, content, message):
    file = tmp_path / "si_config.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigurationError) as caught:
        recipe("--config", str(file))
    assert str(file) in str(caught.value) and message in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="--config .*nowhere.json: .*No such file"):
        recipe("--config", str(tmp_path / "nowhere.json"))


@pytest.mark.parametrize("words, message", [
    ("--dataset c4 --sparsity 1", "sparsity=1.0: expected a number at least 0 and below 1"),
    ("--dataset c4 --num-samples 0", "calibration.num_samples=0: expected a whole number"),
    ("--dataset c4 --no-induction --epochs 1", "--no-induction contradicts --epochs and --learning-rate"),
    ("--method wanda", "there is no calibration data: give --dataset"),
])  # fmt: skip
def test_wrong_values_are_configuration_errors(words, message):
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        recipe(*words.split())


@pytest.mark.parametrize("words, message", [
    ("--sparsity 0.5 --pattern 2:4", "not allowed with argument --sparsity"),
    ("--pattern 24", "accepted: 'N:M' with 1 <= N < M"),
    ("--method obs", "invalid choice: 'obs' (choose from"),
    ("--epochs few", "invalid whole number value: 'few'"),
    ("--dtype int8", "invalid choice: 'int8'"),
])  # fmt: skip
def test_argparse_refuses_before_anything_is_loaded(words, message, capsys):
    with pytest.raises(SystemExit) as caught:
        parse("--dataset", "c4", *words.split())
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_induce_has_every_flag_of_prune_but_one():
    prune, induce = (set(vars(parse(command=command))) for command in (PruneCommand, InduceCommand))
    assert prune - induce == {"induction"} and induce < prune
    assert recipe("--dataset", "c4", command=InduceCommand) == recipe("--dataset", "c4")


@pytest.mark.parametrize("command", [PruneCommand, InduceCommand])
def test_the_help_states_the_defaults_of_the_configuration(command):
    parser = ArgumentParser()
    command.parse_args(parser)
    config = SIConfig().to_dict()
    of_recovery = {f"recovery_{name}": value for name, value in asdict(RecoveryConfig()).items()}
    values = {**config, **config["calibration"], **config["induction"], **of_recovery}
    stated = {
        action.dest: match[1]
        for action in parser._actions
        if (match := re.search(r"\(default: ([\w.-]+)\)", action.help or ""))
    }
    assert stated.pop("split") == "train"
    assert stated == {name: str(values[name]) for name in stated} and len(stated) >= 8


@pytest.mark.parametrize(
    "content", [b"[" * 200_000, b'{"seed": ' + b"9" * 5000 + b"}", None], ids=["deep", "long", "pipe"]
)
def test_a_hostile_recipe_is_a_line_that_names_it(tmp_path, content):
    file = tmp_path / "recipe.json"
    os.mkfifo(file) if content is None else file.write_bytes(content)
    with pytest.raises(ConfigurationError, match="--config .*recipe.json: is not JSON"):
        recipe("--dataset", "c4", "--config", str(file))
