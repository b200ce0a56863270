"""``optimum.si::SparseLinear`` in a graph: which weight a node has packed."""

import onnx_ir as ir

from optimum_si.errors import CheckpointError
from optimum_si.onnx.kernels.packed import VERSION, Packed
from optimum_si.onnx.kernels.validate import check


DOMAIN, OPERATOR = "optimum.si", "SparseLinear"
#: Inputs of a node after x, in order; a bias may follow.
PARTS = ("values", "indices", "starts", "scales")
BIAS = 5


def is_sparse(model: ir.Model) -> bool:
    """Whether a graph has packed weights."""
    return any(node.domain == DOMAIN for node in model.graph.all_nodes())


def packed_of(node: ir.Node) -> Packed:
    """The packed weight of a node.

    Raises:
        CheckpointError: for another version of the format, or damaged parts.
    """
    version = node.attributes["version"].as_int()
    if version != VERSION:
        raise CheckpointError(
            f"packed weights have version {version} of the format, and this is {VERSION}: install the optimum-si that "
            "wrote the model."
        )
    rows, columns, group = (node.attributes[name].as_int() for name in ("N", "K", "group"))
    parts = {}
    for name, value in zip(PARTS, node.inputs[1:BIAS], strict=True):
        assert value is not None and value.const_value is not None
        parts[name] = value.const_value.numpy()
    dtype = node.attributes["kind"].as_string()
    packed = Packed(node.attributes["format"].as_string(), dtype, (rows, columns), group, parts)
    try:
        check(packed)
    except ValueError as error:
        raise CheckpointError(f"the packed weight {name_of(node)!r} is damaged: {error} Export it again.") from error
    return packed


def packed_node(x: ir.Value, packed: Packed, parts: dict[str, ir.Value], bias: ir.Value | None = None) -> ir.Node:
    """x W^T (+ bias) with a packed W [N, K], whose ``parts`` are initializers by name; x is fp32 [..., K]."""
    rows, columns = packed.shape
    numbers = {"version": VERSION, "N": rows, "K": columns, "group": packed.group}
    attributes = [ir.AttrInt64(name, number) for name, number in numbers.items()]
    attributes += [ir.AttrString("format", packed.format), ir.AttrString("kind", packed.dtype)]
    inputs = [x, *(parts[name] for name in PARTS), *([] if bias is None else [bias])]
    return ir.Node(DOMAIN, OPERATOR, inputs, attributes)


def name_of(node: ir.Node) -> str:
    """Of the matrix that was packed."""
    values = node.inputs[1]
    assert values is not None
    return (values.name or "").removesuffix(f".{PARTS[0]}")
