"""``benchmarks/real_model.py``: what it measures, what it makes of it, and that it goes on from what it has."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.models import save_with_tokenizer, tiny

from optimum_si.commands.prune import PruneCommand
from optimum_si.commands.recipe import config_from_args


BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import real_model  # noqa: E402
import real_model_rows  # noqa: E402
from whole_commands import CommandFailed, Finished, run_measured  # noqa: E402


sys.path.remove(str(BENCHMARKS))

DENSE = {"articles": 10.0, "news": 20.0}
WANDA = {"articles": 50.0, "news": 20.0}
OURS = {"articles": 20.0, "news": 20.0}


def python(code: str) -> subprocess.CompletedProcess[str]:
    """A process that has imported nothing, in the folder of the benchmarks."""
    return subprocess.run([sys.executable, "-c", code], cwd=BENCHMARKS, capture_output=True, text=True)


def test_the_peak_is_that_of_the_command_alone():
    # From a process of its own: this one holds torch, and a command's peak counts what its parent held.
    peaks = python(
        "import sys\nfrom whole_commands import run_measured\n"
        "for size in (0, 200):\n"
        "    print(run_measured([sys.executable, '-c', f'len(bytearray({size} * 10**6))']).peak_bytes)"
    )
    small, large = map(int, peaks.stdout.split())
    assert 190e6 < large - small < 220e6


def test_what_measures_imports_no_torch():
    done = python("import real_model, sys; print('torch' in sys.modules)")
    assert done.stdout.split() == ["False"], done.stderr


def test_a_command_that_fails_tells_the_end_of_its_log():
    with pytest.raises(CommandFailed, match="ValueError: 7") as failed:
        run_measured([sys.executable, "-c", "raise ValueError(7)"])
    assert failed.value.last_line == "ValueError: 7"
    with pytest.raises(CommandFailed, match="cannot be started"):
        run_measured(["no-such-program"])


def test_the_command_under_way_ends_with_the_benchmark(tmp_path):
    peer = tmp_path / "python"
    peer.write_text(
        f"#!/bin/sh\necho $$ > {tmp_path}/writing && mv {tmp_path}/writing {tmp_path}/pid\nexec sleep 600\n"
    )
    peer.chmod(peer.stat().st_mode | stat.S_IXUSR)
    benchmark = subprocess.Popen([sys.executable, BENCHMARKS / "real_model.py", "--peer-python", peer])
    while not (tmp_path / "pid").is_file():
        assert benchmark.poll() is None
        time.sleep(0.05)
    benchmark.terminate()
    assert benchmark.wait(timeout=60) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_times_are_in_the_forward_passes_around_each_command():
    row = {"forward": [[1.0, 3.0], [2.0, 2.0], [4.0, 4.0]], "command": [20, 22, 80], "run": [10, 8, 4], "peak": 1.5e9}
    assert real_model.times(row) == {"F, s": "2.00", "command, F": "11.0", "run, F": "4.0", "peak, MB": "1500"}


def test_the_share_of_the_gap_needs_a_gap_and_both_ends_of_it():
    shown = real_model.quality(OURS, DENSE, WANDA)
    assert (shown["articles"], shown["x"], shown["closed"]) == ("20.00", "2.00", "75%")
    assert (shown["x "], shown["closed "]) == ("1.00", "-"), "plain Wanda loses nothing on this text"
    assert real_model.quality(OURS, DENSE, None)["closed"] == "-"
    assert real_model.quality(OURS, None, WANDA)["x"] == "-"


def test_a_machine_that_is_not_quiet_is_said_to_be():
    assert real_model.noise({"forward": [[1.0, 1.05], [1.0, 0.95]]}) == ""
    assert "20%" in real_model.noise({"forward": [[1.0, 1.05], [1.0, 0.8]]})


def test_sparsegpt_stands_beside_the_peers():
    ours = {"run": [12.0], "peak": 1.5e9, "target": "2:4"}
    peer = {"run": [20.0], "peak": 2.5e9, "words": "llmcompressor==0.14.1"}
    line = real_model.beside_peer(ours, peer)
    assert "2:4" in line and "0.60 of its call" in line and "1500 against 2500 MB" in line


class Commands:
    """Stands in for every process: a forward pass takes 2 s, a run 10 s, and perplexity is 5."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pruned: list[list[str]] = []
        self.broken = ""
        monkeypatch.setattr(real_model_rows, "run_measured", self.run)

    def run(self, command: list[object], environment: dict[str, str]) -> Finished:
        words = [str(word) for word in command]
        assert set(environment.values()) == {"2"}, "every process has the same number of threads"
        if words[1].endswith("real_model_steps.py"):
            answers = {
                "prepare": {"model": "model", "name": "tiny", "blocks": json.loads(words[3]).get("blocks") or 4},
                "forward": {"seconds": 2.0},
                "perplexities": {"articles": 5.0, "news": 5.0},
            }
            return Finished(1.0, 0, f"noise\n{json.dumps(answers[words[2]])}\n")
        if self.broken and self.broken in words:
            raise CommandFailed("a log\nerror: broken")
        self.pruned.append(words)
        if "-o" in words:
            (output := Path(words[words.index("-o") + 1])).mkdir()
            (output / "si_report.json").write_text(json.dumps({"seconds": 10.0}))
        return Finished(12.0, 10**9, '{"seconds": 10.0}\n')


@pytest.fixture
def commands(monkeypatch) -> Commands:
    return Commands(monkeypatch)


def arguments(**changes) -> Namespace:
    given = {
        "model": None,
        "windows": 2,
        "length": 8,
        "test_windows": 2,
        "threads": 2,
        "repeat": 1,
        "output": None,
        "test_length": None,
    }
    given |= {
        "targets": ["2:4", "50%"],
        "blocks": None,
        "dataset": None,
        "scaling": None,
        "peer_python": None,
        "peer_version": None,
    }
    return Namespace(**{**given, **changes})


def test_a_run_goes_on_from_what_its_output_holds(commands, tmp_path, capsys):
    args = arguments(output=tmp_path / "rows.jsonl")
    assert real_model.compare(args, ["dense", "wanda"], tmp_path)
    first = capsys.readouterr().out
    assert len(commands.pruned) == 2 and len(real_model_rows.read_rows(args.output)) == 3
    assert real_model.compare(args, ["dense", "wanda"], tmp_path)
    assert len(commands.pruned) == 2 and capsys.readouterr().out == first
    assert real_model.compare(args, ["dense", "wanda", "fast"], tmp_path)
    assert len(commands.pruned) == 4
    for changes in ({"windows": 3}, {"test_windows": 3}, {"blocks": 2}, {"repeat": 2}):
        before = len(commands.pruned)
        real_model.compare(arguments(output=args.output, **changes), ["wanda"], tmp_path)
        assert len(commands.pruned) - before == 2 * changes.get("repeat", 1), changes


def test_a_recipe_that_fails_leaves_the_others_their_rows(commands, tmp_path, capsys):
    commands.broken = "sparsegpt"
    args = arguments(output=tmp_path / "rows.jsonl")
    assert not real_model.compare(args, ["sparsegpt", "wanda"], tmp_path)
    shown = capsys.readouterr()
    assert shown.out.count("failed: error: broken") == 2 and "a log" in shown.err
    assert [row["recipe"] for row in real_model_rows.read_rows(args.output)] == ["wanda", "wanda"]


def test_scaling_relates_the_time_of_a_block_to_that_in_the_shortest_model(commands, tmp_path, capsys):
    assert real_model.scale(arguments(scaling=[2, 8], targets=None), ["dense", "wanda"], tmp_path)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    # Every run takes 10 s here, so four times the blocks take a quarter of the time each.
    assert [(row[:3], row[-2:]) for row in rows] == [
        (["wanda", "2:4", "2"], ["5.00", "1.00"]),
        (["wanda", "2:4", "8"], ["1.25", "0.25"]),
    ]


def test_the_peer_gets_our_windows_and_tells_the_seconds_of_its_call(commands, tmp_path):
    args = arguments(peer_python="peer/python", peer_version="0.14.0")
    row = real_model_rows.Bench(args, tmp_path, None).row(real_model_rows.PEER, "2:4")
    (words,) = commands.pruned
    assert words[0] == "peer/python" and Path(words[1]).is_file()
    assert words[2:6] == ["model", str(tmp_path / "windows.safetensors"), "sparsegpt", "2:4"]
    assert row["run"] == [10.0] and row["command"] == [12.0] and row["words"] == "llmcompressor==0.14.0"


@pytest.mark.parametrize("target", real_model.TARGETS)
def test_every_command_is_a_recipe_that_says_what_its_row_is_called(commands, tmp_path, target):
    bench = real_model_rows.Bench(arguments(), tmp_path, None)
    parser = ArgumentParser()
    PruneCommand.add_arguments(parser)
    found = {}
    for recipe in set(real_model_rows.RECIPES) - {real_model_rows.DENSE}:
        bench.row(recipe, target)
        words = commands.pruned[-1]
        config = found[recipe] = config_from_args(parser.parse_args(words[words.index("prune") + 1 :]))
        assert (config.pattern or f"{config.sparsity:.0%}") == target, recipe
    for recipe in ("wanda", "sparsegpt"):
        plain = found[recipe]
        assert (plain.method, plain.induction, plain.reconstruction, plain.recovery) == (recipe, None, "none", None)
    assert found["si-wanda"].induction.epochs == 3
    assert (found["admm"].reconstruction, found["admm"].recovery) == ("admm", None)
    assert found["best"] != found["fast"]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("gensim") is None, reason="needs the extra realmodels")
def test_a_tiny_model_goes_through_all_of_it(tmp_path):
    text = Path(__file__).read_text(encoding="utf-8")
    save_with_tokenizer(tiny("llama"), tmp_path / "tiny-llama", text)
    peer = tmp_path / "python"
    # Finds every package, leaves the model as it is, and saves no tokenizer, as llm-compressor's worker does.
    peer.write_text(
        "#!/bin/sh\n"
        '[ "$1" = -c ] && echo 0.14.0 && exit 0\n'
        'cp -r "$2" "$6" && rm "$6"/tokenizer* && echo \'{"seconds": 1}\'\n'
    )
    peer.chmod(peer.stat().st_mode | stat.S_IXUSR)
    words = ["--windows", 8, "--length", 16, "--test-windows", 2, "--threads", 1, "--recipes", "dense", "sparsegpt"]
    words += ["--targets", "2:4", "--peer-python", peer, "--output", tmp_path / "rows.jsonl"]
    environment = {**os.environ, "SI_REAL_MODEL": str(tmp_path / "tiny-llama")}
    command = [sys.executable, str(BENCHMARKS / "real_model.py"), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
    assert done.returncode == 0, done.stderr + done.stdout
    dense, pruned, peers = map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines())
    assert peers["articles"] == dense["articles"] != pruned["articles"]
    assert pruned["peak"] > 1e8 and 0 < pruned["run"][0] < pruned["command"][0]
    assert pruned["settings"]["blocks"] == 2
    assert "SparseGPT at 2:4 beside llmcompressor==0.14.0" in done.stdout


@pytest.mark.slow
def test_without_llm_compressor_it_says_how_to_set_it_up():
    command = [sys.executable, str(BENCHMARKS / "real_model.py"), "--peer-python", "no-such-python"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "llmc/bin/pip install" in done.stderr
