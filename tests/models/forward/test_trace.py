"""What calibration data lacks is named by the input that a tower reads."""

import pytest
from support.zoo import ZOO

from optimum_si.errors import CalibrationError
from optimum_si.models.forward.trace import trace
from optimum_si.models.stacks import find_stacks
from optimum_si.models.structure import find_structure


@pytest.mark.parametrize("name", ["Qwen3VLForConditionalGeneration", "Idefics3ForConditionalGeneration", "CLIPModel"])
def test_text_alone_lacks_the_images_of_a_tower(name):
    model = ZOO[name].build()
    example = {key: value for key, value in ZOO[name].examples(1)[0].items() if key in ("input_ids", "attention_mask")}
    example["input_ids"] = example["input_ids"].clamp(max=80)  # no token that stands for an image
    structure = find_structure(model)
    with pytest.raises(CalibrationError, match="(that tower reads|They lack) 'pixel_values'"):
        trace(model, structure, [example], [block.name for block in structure.blocks])


def test_the_padding_of_text_is_none_of_a_vision_tower():
    """Both may have the same length."""
    stacks = {stack.name: stack for stack in find_stacks(ZOO["SmolVLMForConditionalGeneration"].build())}
    vision, language = stacks["model.vision_model.encoder.layers"], stacks["model.text_model.layers"]
    assert (vision.reads, language.reads) == ("pixel_values", "input_ids")
    assert (vision.padding.own, language.padding.own) == (None, "attention_mask")
