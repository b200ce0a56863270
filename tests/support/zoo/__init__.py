"""Tiny random models of many classes of transformers, each with examples that reach all of its towers."""

from . import (
    audio,
    decoders,
    encoders,
    experts,
    hybrids,
    multimodal,
    sequence_to_sequence,
    towers,
    vision,
)
from .left_out import LEFT_OUT as LEFT_OUT
from .specimen import Specimen as Specimen


ZOO: dict[str, Specimen] = {
    specimen.name: specimen
    for module in (decoders, experts, hybrids, encoders, sequence_to_sequence, vision, audio, towers, multimodal)
    for specimen in module.SPECIMENS
}
