"""What a model card says, how edits are kept, and that its commands and its code are true."""

import dataclasses
import re
import shlex
import subprocess
from argparse import ArgumentParser

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from support.models import calibration, prune, tiny

from optimum_si import CheckpointError, Report, SIConfig, SIPruner
from optimum_si.commands.prune import PruneCommand
from optimum_si.commands.recipe import config_from_args
from optimum_si.evaluation.keep import keep_results
from optimum_si.evaluation.results import Evaluation
from optimum_si.evaluation.tasks import TaskScore
from optimum_si.hub.base_model import base_of, public_name
from optimum_si.hub.card import broken_metadata, is_edited, render, write_card
from optimum_si.hub.facts import read_facts
from optimum_si.hub.markdown import shell_command
from optimum_si.hub.results import Result, load_results, save_results


RECIPE = {"pattern": "2:4", "induction": None}


@pytest.fixture
def saved(tmp_path):
    """A pruned OPT in a folder."""
    pruner = prune(tiny("opt"), "wanda", **RECIPE)
    pruner.save_pretrained(tmp_path / "sparse-opt")
    return tmp_path / "sparse-opt"


def card_of(directory):
    return (directory / "README.md").read_text()


def test_the_metadata_says_what_the_model_is(saved):
    data = ModelCard(card_of(saved)).data
    named = data.to_dict()
    assert (named["library_name"], named["pipeline_tag"]) == ("transformers", "text-generation")
    assert data.tags == ["optimum-si", "sparse", "sparsity", "pruned", "wanda", "2:4"]
    assert data.base_model is None and data.license is None


def test_the_text_says_what_was_done(saved):
    text = card_of(saved)
    assert (
        text.count("# sparse-opt\n") == 1
        and "pruned to 2:4 in the layers that hold 80% of its weights with Wanda, without induction" in text
    )
    assert "| zeros in the pruned layers | 50.00% |" in text
    worst = max(Report.load(saved).layers, key=lambda layer: layer.error_after)
    assert "| `fc2` | 2 | 50.00% | " in text and text.count("model.decoder.layers.") == 5
    rows, columns = worst.shape
    assert f"| `{worst.name}` | {rows}x{columns} | 50.00% | {worst.error_after:.4f} |" in text
    assert "The license and the limits of model apply" in text and "Quality was not measured" in text


def test_a_base_model_on_the_hub_gives_its_name_and_its_license(local_hub, tmp_path):
    tiny("opt").save_pretrained(tmp_path / "base")
    files = {file.name: file.read_bytes() for file in (tmp_path / "base").iterdir()}
    metadata = "license: other\nlicense_name: opt\nlicense_link: https://x.example\nlanguage: en\ntags: [old]"
    local_hub.repositories["facebook/opt-tiny"] = {**files, "README.md": f"---\n{metadata}\n---\n# OPT\n".encode()}
    pruner = SIPruner.from_pretrained("facebook/opt-tiny")
    pruner.prune(SIConfig("wanda", **RECIPE), calibration("opt"), save_dir=tmp_path / "out", progress=False)
    data = ModelCard(card_of(tmp_path / "out")).data
    assert (data.base_model, data.base_model_relation) == ("facebook/opt-tiny", "finetune")
    assert (data.license, data.license_name, data.language) == ("other", "opt", "en") and "old" not in data.tags
    assert "License (other) and limits are those of facebook/opt-tiny" in card_of(tmp_path / "out")


def test_no_local_path_is_in_it(tmp_path, monkeypatch):
    folder = tmp_path / "secret-place" / "my-opt"
    tiny("opt").save_pretrained(folder)
    data = tmp_path / "secret-data.txt"
    data.write_text("text")
    pruner = SIPruner.from_pretrained(folder)
    config = SIConfig("wanda", **RECIPE, calibration={"dataset": str(data)})
    pruner.prune(config, calibration("opt"), save_dir=tmp_path / "out", progress=False)
    text = card_of(tmp_path / "out")
    assert "secret-place" not in text and str(tmp_path) not in text
    assert "-m my-opt --dataset secret-data.txt" in text and "base_model" not in text


def test_an_induced_checkpoint_hands_its_own_base_on(tmp_path):
    tiny("opt").save_pretrained(tmp_path / "first")
    recipe = SIConfig("wanda", pattern="2:4", induction={"epochs": 1})
    pruner = SIPruner.from_pretrained(tmp_path / "first")
    pruner.induce(recipe, calibration("opt"), save_dir=tmp_path / "induced", progress=False)
    assert "still dense: it computes the same function" in card_of(tmp_path / "induced")
    assert base_of(str(tmp_path / "induced"))["name"] == "first"


@pytest.mark.parametrize(
    ("given", "public"),
    [
        ("wikitext2", "wikitext2"),
        ("allenai/c4", "allenai/c4"),
        ("/home/me/texts/*.txt", "*.txt"),
        ("texts/notes.jsonl", "notes.jsonl"),
        ("../data", "data"),
        ("a/b/c", "c"),
        ("C:\\Users\\me\\secret.txt", "secret.txt"),
        (".", "local-data"),
    ],
)
def test_datasets_are_named_without_their_path(given, public):
    assert public_name(given) == public


def test_a_model_in_the_cache_of_the_hub_is_named_by_its_id(tmp_path):
    snapshot = tmp_path / "models--facebook--opt-125m" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    assert base_of(str(snapshot)) == {"name": "facebook/opt-125m", "on_hub": True}


@pytest.mark.parametrize(
    "recipe",
    [
        {},
        {"method": "wanda", "pattern": "4:8", "induction": None},
        {"method": "wanda", "pattern": "2:4", "reconstruction": "admm", "repair": 0.25, "swaps": True},
        {"preset": "best", "pattern": "2:4", "transformations": None},
        {"preset": "best", "method": "sparsegpt", "sparsity": 0.7, "quantization": "int4"},
        {"preset": "fast", "sparsity": 0.7, "allocation": "owl"},
        {"sparsity": 0.6, "induction": {"epochs": 2, "learning_rate": 0.5}, "seed": 3},
        {
            "include": ["*.mlp.*", "*.fc1"],
            "exclude": "*.0.*",
            "calibration": {"num_samples": 7, "split": "validation"},
        },
    ],
)
def test_the_command_in_the_card_gives_the_same_recipe(tmp_path, recipe):
    recipe = dict(recipe)
    preset = recipe.pop("preset", None)
    recipe["calibration"] = {"dataset": "wikitext2", "seed": recipe.get("seed", 0), **recipe.get("calibration", {})}
    config = SIConfig(**{"method": "sparsegpt", **recipe}) if preset is None else SIConfig.preset(preset, **recipe)
    assert parsed(tmp_path, config).to_dict() == config.to_dict()


def test_a_recipe_beyond_the_flags_is_repeated_from_its_file(tmp_path):
    config = SIConfig("wanda", induction={"temperature": 0.1}, calibration={"dataset": "wikitext2"})
    assert parsed(tmp_path, config).to_dict() == config.to_dict()
    assert "hf download me/sparse si_config.json" in render(read_facts(tmp_path, "me/sparse"))


def parsed(directory, config):
    """The recipe that the card's command gives, read by the command line's own parser."""
    pruner = prune(tiny("opt"), "wanda", **RECIPE)
    pruner.config = config
    pruner.save_pretrained(directory, overwrite=True)
    commands = re.search(r"## Make it again\n\n```bash\n(.+?)```", render(read_facts(directory, "me/sparse")), re.S)
    words = shlex.split(commands[1].strip().splitlines()[-1])
    assert words[:3] == ["optimum-cli", "si", "prune"] and words[-1] == "sparse"
    parser = ArgumentParser()
    PruneCommand.parse_args(parser)
    return config_from_args(
        parser.parse_args([word.replace("si_config.json", f"{directory}/si_config.json") for word in words[3:]])
    )


def test_results_are_shown_and_indexed(saved):
    save_results(saved, [Result("wikitext2", "perplexity", 40.0), Result("arc_easy", "accuracy", 0.4, dense=0.5)])
    save_results(saved, [Result("wikitext2", "perplexity", 38.5, dense=27.65, details="2048 tokens")])
    write_card(saved, "sparse-opt", card_of(saved))
    text = card_of(saved)
    assert "| wikitext2 (2048 tokens) | perplexity | 27.65 | 38.5 |" in text
    assert "| arc_easy | accuracy | 0.5 | 0.4 |" in text and "Quality was not measured" not in text
    results = {entry.dataset_name: entry.metric_value for entry in ModelCard(text).data.eval_results}
    assert results == {"wikitext2": 38.5, "arc_easy": 0.4}


def test_evaluations_are_kept_where_prune_wrote_and_compared_with_the_dense_model(saved):
    score = TaskScore("acc", 0.25, 0.01, 40)
    dense = Evaluation("facebook/opt", "PyTorch", 0.0, "/data/held-out.txt", 20.0, {"arc_easy": score})
    sparse = Evaluation(str(saved), "PyTorch", 0.5, "/data/held-out.txt", 25.0, {"arc_easy": score})
    assert keep_results([dense, sparse], sequence_length=64) == [saved]
    assert "| held-out.txt (64 tokens a window) | perplexity | 20 | 25 |" in card_of(saved)
    assert "| arc_easy (40 examples) | acc | 0.25 | 0.25 |" in card_of(saved)
    (saved / "README.md").write_text("mine")
    keep_results([sparse])
    assert card_of(saved) == "mine" and load_results(saved)[0].dense is None
    (saved / "si_evaluation.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="si_evaluation.json' is damaged .* delete it and measure again"):
        keep_results([sparse])


def test_an_edited_card_is_kept_and_ours_is_written_anew(saved):
    pruner = prune(tiny("opt"), "magnitude", **RECIPE)
    assert not is_edited(card_of(saved)) and not is_edited(card_of(saved).replace("\n", "\r\n"))
    pruner.save_pretrained(saved, overwrite=True)
    assert "with Magnitude" in card_of(saved)
    (saved / "README.md").write_text(card_of(saved).replace("What to know", "My own words"))
    assert is_edited(card_of(saved))
    prune(tiny("opt"), "wanda", **RECIPE).save_pretrained(saved, overwrite=True)
    assert "My own words" in card_of(saved) and "with Magnitude" in card_of(saved)


def test_an_edited_card_with_broken_metadata_is_kept_and_reported(saved):
    (saved / "README.md").write_text("---\nlicense: [mit\n---\nmine")
    with pytest.warns(UserWarning, match="README.md was edited and is kept, but its metadata is broken: .*expected"):
        prune(tiny("opt"), "wanda", **RECIPE).save_pretrained(saved, overwrite=True)
    assert card_of(saved).endswith("mine")


def test_broken_metadata_is_described():
    assert broken_metadata("---\nlicense: mit\n---\n") is None
    assert "expected" in broken_metadata("---\na: [b\n---\n")
    assert "should be a dict" in broken_metadata("---\n- a\n---\n")


def test_the_metadata_is_yaml_with_every_key_once(saved):
    block = card_of(saved).split("---\n")[1]
    assert isinstance(yaml.safe_load(block), dict)
    keys = re.findall(r"^(\w+):", block, re.M)
    assert len(keys) == len(set(keys))


HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</code><script>alert(1)</script>",
    "x` <script>alert(1)</script> `",
    "x](javascript:alert(1)) [y",
    "| cell |\n|---|\n| other |",
    "```\n<script>alert(1)</script>\n```",
    "\n---\nlicense: mit\n---\n# Owned",
    "&lt;b&gt; ![i](http://tracker/x.png)",
    "\x1b[2J\u202e\r",
    "'; rm -rf / #",
    "$(touch owned) `touch owned`",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_others_is_shown_in_a_card_and_does_nothing(saved, text):
    facts = read_facts(saved, "sparse-opt")
    report = replace_everywhere(facts.report, text)
    result = Result(dataset=text, metric=text, value=1.0, dense=2.0, details=text)
    facts = dataclasses.replace(
        facts,
        report=report,
        name=text,
        title=text,
        base=text,
        method=text,
        dataset=text,
        licenses=[text],
        results=[result],
        pictures={text: text},
        kinds=[dataclasses.replace(kind, name=text) for kind in facts.kinds],
        worst=[dataclasses.replace(layer, name=text) for layer in facts.worst],
        commands=[shell_command(["optimum-cli", "si", "prune", "-m", text])],
    )
    card = render(facts)
    data = ModelCard(card).data  # the metadata is what we wrote, to its end
    assert data.library_name == "transformers" and data.license == text
    body = ModelCard(card).text
    assert all(character == "\n" or character.isprintable() for character in body)
    elements, links = elements_of(body)
    assert {element for element in elements if not element.startswith("<!-- optimum-si card")} <= {"<code>", "</code>"}
    assert all(
        link.startswith(("https://huggingface.co/", "https://arxiv.org/")) or "://" not in link for link in links
    )
    assert not any(link.startswith("javascript") for link in links)
    headings = re.findall(r"^#+ .*$", body, flags=re.MULTILINE)
    assert len([heading for heading in headings if not heading.startswith("# now")]) == 8, headings
    (command,) = [line for line in card.splitlines() if line.startswith("optimum-cli si prune")]
    shown = subprocess.check_output(["bash", "-c", command.replace("optimum-cli si prune -m", "printf %s")])
    assert shown.decode() == text


def elements_of(markdown):
    """HTML that a card holds, and where its links and pictures lead."""
    elements, links = set(), []
    for block in MarkdownIt("commonmark").enable("table").parse(markdown):
        if block.type == "html_block":
            elements.add(block.content.strip())
        for token in block.children or []:
            if token.type == "html_inline":
                elements.add(token.content)
            links += [str(token.attrs[name]) for name in ("href", "src") if name in token.attrs]
    return elements, links


def replace_everywhere(report, text):
    report.method = report.target = report.dataset = text
    report.steps = [text]
    report.base = {"name": text, "on_hub": True, "license": text, "pipeline_tag": None}
    return report
