"""Small edits of a graph that several steps make."""

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass


def array_of(value: ir.Value) -> np.ndarray:
    """The array of a constant."""
    assert value.const_value is not None
    return value.const_value.numpy()


def add_initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Store an array in a graph under a name."""
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def replace_node(old: ir.Node, new: ir.Node) -> None:
    """Put a node that is already in the graph in the place of another one, which is removed."""
    assert old.graph is not None
    ir.convenience.replace_nodes_and_values(old.graph, old, [old], [new], old.outputs, new.outputs)


def remove_unused(model: ir.Model) -> None:
    """Remove the nodes and weights that nothing reads any more."""
    RemoveUnusedNodesPass()(model)
