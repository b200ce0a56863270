"""What of a model would be pruned, told without its weights."""

import json

import pytest
from support.mixtures import MIXTURES, mixture, mixture_data
from support.models import FAMILIES, prune, tiny
from support.zoo import ZOO

from optimum_si import ConfigurationError, SIConfig, SIPruner
from optimum_si.commands.inspect import InspectCommand
from optimum_si.pipeline.inspect import inspect


@pytest.mark.parametrize("name", FAMILIES)
def test_the_pairs_and_layers_are_those_of_the_loaded_model(name, tmp_path):
    from optimum_si.models.structure import find_structure

    model = tiny(name)
    model.config.save_pretrained(tmp_path)
    model.config.architectures = [type(model).__name__]
    model.save_pretrained(tmp_path)
    found, structure = inspect(str(tmp_path)), find_structure(model)
    assert [stack.name for stack in found.stacks] == [stack.name for stack in structure.stacks]
    pairs = {group.name for block in structure.blocks for group in block.scale_groups if group.absorbable}
    assert {pair for stack in found.stacks for pair in stack.pairs} == pairs
    weights = sum(
        rows * columns for block in structure.blocks for rows, columns in (v.shape for v in block.views.values())
    )
    assert found.inventory.pruned == weights and found.inventory.total == model.num_parameters()


@pytest.mark.parametrize("name", MIXTURES)
def test_what_it_says_is_what_a_run_does(name, tmp_path):
    model = mixture(name)
    model.save_pretrained(tmp_path)
    found = inspect(str(tmp_path))
    config = SIConfig("wanda", induction=None, calibration={"batch_size": 1})
    pruner = SIPruner(model)
    pruner.prune(config, mixture_data(name), progress=False)
    report = pruner.report
    assert report.parameters == found.inventory.total
    reached = sum(layer.num_weights for layer in report.layers)
    assert found.inventory.pruned == reached + report.dense_parts.get("not reached by the data", 0)
    assert sum(kind.count for stack in found.stacks for kind in stack.layers) >= len(report.layers)
    assert not any("experts.1." in line for line in found.text().splitlines() if "pairs: " in line)


def test_both_towers_and_what_a_recipe_leaves_out_are_shown(tmp_path):
    model = ZOO["LlavaForConditionalGeneration"].build()
    model.save_pretrained(tmp_path)
    found = inspect(str(tmp_path), stacks=["model.language_model.*"])
    by_name = {stack.name: stack for stack in found.stacks}
    vision = next(stack for name, stack in by_name.items() if "vision" in name)
    assert vision.reads == "pixel_values" and not any(kind.pruned for kind in vision.layers)
    assert all(kind.pruned for kind in by_name["model.language_model.layers"].layers)
    assert "left out by the recipe" in found.text()
    json.dumps(found.to_dict())
    with pytest.raises(ConfigurationError, match="stacks='nope' matches none of this model's: 'model.vision_tower"):
        inspect(str(tmp_path), stacks=["nope"])


def test_the_command_prints_tables_or_json(tmp_path, capsys):
    from argparse import ArgumentParser

    prune(tiny("llama"), induction=None, save_dir=tmp_path / "saved")
    parser = ArgumentParser()
    InspectCommand.add_arguments(parser)
    command = InspectCommand.__new__(InspectCommand)
    command.execute(parser.parse_args([str(tmp_path / "saved")]))
    assert "model.layers: 2 x LlamaDecoderLayer" in capsys.readouterr().out
    command.execute(parser.parse_args([str(tmp_path / "saved"), "--json"]))
    assert json.loads(capsys.readouterr().out)["architecture"] == "LlamaForCausalLM"


@pytest.mark.parametrize("name", ["T5ForConditionalGeneration", "WhisperForConditionalGeneration"])
def test_a_decoder_reads_its_own_input(name, tmp_path):
    ZOO[name].build().save_pretrained(tmp_path)
    first, second = (stack.reads for stack in inspect(str(tmp_path)).stacks)
    assert first in ("input_ids", "input_features") and second == "decoder_input_ids"
