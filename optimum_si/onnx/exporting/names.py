"""Names of inputs, outputs and axes, which ONNX Runtime's own tools know."""

import re
from collections.abc import Iterator

import onnx_ir as ir


#: Inputs and outputs of a cache, as the exporter of transformers names them.
_CACHE = re.compile(r"(input|output)\.(?:past_key_values|cache)\.layers\.(\d+)\.(keys|values)$")


def rename(graph: ir.Graph) -> None:
    """Give inputs, outputs and dynamic axes the names that ONNX Runtime's own tools use.

    ``past_key_values.N.key`` and ``present.N.key``, ``encoder_hidden_states``, and the axes ``batch_size``,
    ``sequence_length``, ``past_sequence_length``, ``total_sequence_length``, ``encoder_sequence_length``.
    """
    _rename_values(graph)
    names = _axis_names(graph)
    for value in _values(graph):
        if value.shape is not None and not value.shape.frozen:
            for index, size in enumerate(value.shape):
                name = str(size.value) if isinstance(size, ir.SymbolicDim) else ""
                if name in names:
                    value.shape[index] = ir.SymbolicDim(names[name])
                elif name.isdigit():  # a constant that the tracer kept as an expression
                    value.shape[index] = int(name)


def _rename_values(graph: ir.Graph) -> None:
    is_decoder = any(value.name == "decoder_input_ids" for value in graph.inputs)
    for value in [*graph.inputs, *graph.outputs]:
        name = value.name or ""
        if match := _CACHE.match(name):
            side, layer, keys_or_values = match.groups()
            prefix = "past_key_values" if side == "input" else "present"
            value.name = f"{prefix}.{layer}.{keys_or_values.removesuffix('s')}"
        elif is_decoder and name == "attention_mask":
            value.name = "encoder_attention_mask"
        elif name == "encoder_outputs.last_hidden_state":
            value.name = "encoder_hidden_states"
    if is_decoder and not _has_cache(graph):
        kept = [value for value in graph.outputs if not re.match(r"(past_key_values|cache)\.", value.name or "")]
        graph.outputs[:] = kept


def _has_cache(graph: ir.Graph) -> bool:
    return any((value.name or "").startswith("past_key_values") for value in graph.inputs)


def _axis_names(graph: ir.Graph) -> dict[str, str]:
    """New names of dynamic axes by those that the exporter gave, as the inputs have them."""
    names: dict[str, str] = {}
    has_cache = _has_cache(graph)
    for value in graph.inputs:
        sizes = () if value.shape is None else value.shape
        for size, axis in zip(sizes, _axes_of(value.name or "", has_cache), strict=False):
            if isinstance(size, ir.SymbolicDim) and size.value is not None and axis is not None:
                names.setdefault(str(size.value), axis)
    return names


def _axes_of(name: str, has_cache: bool) -> tuple[str | None, ...]:
    if name.startswith("past_key_values"):
        return "batch_size", None, "past_sequence_length", None
    if name.startswith("encoder_"):
        return "batch_size", "encoder_sequence_length"
    if name == "attention_mask" and has_cache:
        return "batch_size", "total_sequence_length"
    return ("batch_size",) if name == "pixel_values" else ("batch_size", "sequence_length")


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs
