"""What a specimen is, and how one line declares it: a class of transformers, a tiny configuration, one example."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import transformers
from torch import Generator, Tensor
from transformers import PreTrainedModel


VOCABULARY = 96
#: Tokens below are special (pad, begin, end), tokens from the other on stand for images, sounds and the like.
FIRST_TOKEN, FIRST_PLACEHOLDER = 3, 88
#: Tokens that stand for an image, wherever a model lets its configuration say so.
IMAGE_TOKEN, VIDEO_TOKEN, VISION_START, VISION_END, AUDIO_TOKEN = 90, 91, 92, 93, 94
#: Options of most text models; a configuration keeps those that it does not know as plain attributes.
TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = {**TEXT, "num_key_value_heads": 2}
DECODER = {**GROUPED, "head_dim": 16}
#: A tower of a vision transformer: 16 patches.
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
    "initializer_range": 0.02,  # BLIP-2's is 1e-10
}

Example = dict[str, Tensor]
Draw = Callable[[Generator], Example]


@dataclass(frozen=True)
class Specimen:
    """A tiny random model of one class.

    Args:
        name: name of the class in transformers, with a suffix after a dash where there are several of one class.
        build: the model, the same at every call.
        examples: so many examples, each a dict of tensors that the model accepts and that reach all its towers.
        kind: of what sort the model is, as the module that declares it.
    """

    name: str
    build: Callable[[], PreTrainedModel]
    examples: Callable[[int], list[Example]]
    kind: str


def specimen(name: str, kind: str, options: dict, draw: Draw) -> Specimen:
    """A specimen of ``transformers.<name>``, which a configuration with these options builds."""

    def build() -> PreTrainedModel:
        model_class = getattr(transformers, name.partition("-")[0])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = model_class(model_class.config_class(**copy.deepcopy(options))).eval()
            _stir(model)
        return model

    def examples(count: int) -> list[Example]:
        return [draw(torch.Generator().manual_seed(1000 + number)) for number in range(count)]

    return Specimen(name, build, examples, kind)


@torch.no_grad()
def _stir(model: PreTrainedModel) -> None:
    """Norms and biases away from 1 and 0, gates that are closed at first opened, weights large enough to matter."""
    for parameter in model.parameters():
        noise = torch.randn_like(parameter)
        if parameter.ndim < 2:
            parameter.add_(0.1 * noise)
        elif parameter.numel() and bool((parameter == parameter.flatten()[0]).all()):
            parameter.add_(0.08 * noise)
        elif parameter.numel() and float(parameter.std()) < 0.08:
            parameter.mul_(4)


def tokens(generator: Generator, *shape: int) -> Tensor:
    """int64, none of them special."""
    return torch.randint(FIRST_TOKEN, FIRST_PLACEHOLDER, shape, generator=generator)


def text(length: int = 12, **further: Draw | tuple[int, ...]) -> Draw:
    """``input_ids`` and ``attention_mask`` of one text.

    Args:
        further: by its name, a tensor of normal values of this shape, or a function of the generator that makes one.
    """

    def draw(generator: Generator) -> Example:
        example = {
            "input_ids": tokens(generator, 1, length),
            "attention_mask": torch.ones(1, length, dtype=torch.long),
        }
        return {**example, **values(**further)(generator)}

    return draw


def values(**shapes: Draw | tuple[int, ...]) -> Draw:
    """Normal values of these shapes, by name; a function of the generator makes what is not normal."""

    def draw(generator: Generator) -> Example:
        return {
            name: shape(generator) if callable(shape) else torch.randn(shape, generator=generator)
            for name, shape in shapes.items()
        }

    return draw


def with_placeholders(token: int, count: int, length: int = 8, **further: Draw | tuple[int, ...]) -> Draw:
    """A text in which a token that stands for an image, or a sound, comes so many times after the first word."""

    def draw(generator: Generator) -> Example:
        words = tokens(generator, 1, length)
        ids = torch.cat([words[:, :1], torch.full((1, count), token), words[:, 1:]], dim=1)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **values(**further)(generator)}

    return draw


def always(*rows) -> Draw:
    """An int64 tensor that is the same in every example."""
    return lambda generator: torch.tensor(rows)


def whole(*shape: int) -> Draw:
    """An int64 tensor of ones, as a mask that leaves nothing out."""
    return lambda generator: torch.ones(shape, dtype=torch.long)
