"""Undoing what the exporter leaves around attention: keys and values turned and turned back for every token."""

import onnx_ir as ir

from optimum_si.onnx.edits import remove_unused


#: [batch, heads, tokens, size] <-> [batch, tokens, heads, size].
_SWAP = (0, 2, 1, 3)


def drop_round_trips(model: ir.Model) -> int:
    """Replace Transpose -> Reshape -> Reshape -> Transpose of a cache by the one Transpose that it amounts to.

    The exporter fuses attention and, where that does not suit the runtime, takes it apart again. In between, keys and
    values [batch, heads, tokens, size] became [batch, tokens, heads * size]: two copies of the whole cache a token.

    Returns:
        How many were replaced.
    """
    graph = model.graph
    replaced = 0
    for last in list(graph):
        if last.op_type != "Transpose" or last.outputs[0].is_graph_output():
            continue
        found = _round_trip(last)
        if found is None:
            continue
        source, first_order = found
        order = [first_order[axis] for axis in _order(last)]
        if order == [0, 1, 2, 3]:
            last.outputs[0].replace_all_uses_with(source)
        else:
            transpose = ir.Node("", "Transpose", [source], [ir.AttrInt64s("perm", order)], name=last.name)
            graph.insert_before(last, transpose)
            last.outputs[0].replace_all_uses_with(transpose.outputs[0])
        replaced += 1
    if replaced:
        remove_unused(model)
    return replaced


def _round_trip(last: ir.Node) -> tuple[ir.Value, tuple[int, ...]] | None:
    """The value [batch, heads, tokens, size] whose round trip a Transpose ends, and the order it was put in first."""
    split = _producer(last.inputs[0], "Reshape")
    merged = _producer(split.inputs[0], "Reshape") if split is not None else None
    first = _producer(merged.inputs[0], "Transpose") if merged is not None else None
    if split is None or merged is None or first is None or _order(first) != _SWAP:
        return None
    source = first.inputs[0]
    if source is None or source.shape is None or len(source.shape) != 4:
        return None
    heads, size = source.shape[1], source.shape[3]
    # Only where the two reshapes are known to undo each other: [0, 0, -1 or heads * size], then [0, 0, heads, size].
    if not isinstance(heads, int) or not isinstance(size, int):
        return None
    if _target(merged) not in ([0, 0, -1], [0, 0, heads * size]):
        return None
    if _target(split) not in ([0, 0, heads, -1], [0, 0, heads, size]):
        return None
    return source, _SWAP


def _producer(value: ir.Value | None, operator: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == operator and node.domain == "" else None


def _order(node: ir.Node) -> tuple[int, ...]:
    attribute = node.attributes.get("perm")
    return () if attribute is None else tuple(attribute.as_ints())


def _target(node: ir.Node) -> list[int] | None:
    shape = node.inputs[1]
    if shape is None or shape.const_value is None:
        return None
    return [int(size) for size in shape.const_value.numpy()]
