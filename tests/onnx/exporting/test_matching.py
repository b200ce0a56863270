"""The quicker search rewrites what the other one does, without a look at the whole graph from every node."""

import onnx_ir
import pytest


pytest.importorskip("onnxscript", reason="needs the extra onnx")

from onnxscript import optimizer  # noqa: E402
from onnxscript.rewriter._matcher import SimplePatternMatcher  # noqa: E402

from optimum_si.onnx.exporting.matching import quick_matching  # noqa: E402


#: Halves of a rotation, in the order in which onnxscript finds them to be a split.
LAYER = """
    b{n} = Slice(x{n}, four, eight, last)
    a{n} = Slice(x{n}, zero, four, last)
    n{n} = Neg(b{n})
    x{m} = Concat <axis=1> (n{n}, a{n})
"""
GRAPH = """<ir_version: 10, opset_import: ["" : 20]>
graph (float[2,8] x0) => (float[2,8] x{count})
<int64[1] zero = {{0}}, int64[1] four = {{4}}, int64[1] eight = {{8}}, int64[1] last = {{1}}>
{{
{layers}
}}
"""


def rotations(count: int) -> onnx_ir.Model:
    layers = "".join(LAYER.format(n=index, m=index + 1) for index in range(count))
    return onnx_ir.from_onnx_text(GRAPH.format(count=count, layers=layers))


def operators(model: onnx_ir.Model) -> list[str]:
    optimizer.optimize(model)
    return [node.op_type for node in model.graph]


def test_what_is_rewritten_is_the_same():
    expected = operators(rotations(3))
    with quick_matching():
        assert operators(rotations(3)) == expected
    assert "Split" in expected, "the graph has what the pattern with two results is for"


def test_only_nodes_of_the_right_operator_look_at_the_graph(monkeypatch):
    tried = []
    match = SimplePatternMatcher.match

    def counted(self, model, graph, node, **options):
        if len(self.pattern.output_nodes) > 1:
            tried.append(node.op_type)
        return match(self, model, graph, node, **options)

    monkeypatch.setattr(SimplePatternMatcher, "match", counted)
    with quick_matching():
        operators(rotations(3))
    assert set(tried) == {"Slice"}
    tried.clear()
    operators(rotations(3))
    assert {"Neg", "Concat"} <= set(tried), "as it was before, also within onnxscript"


def test_the_search_is_put_back_after_an_error():
    match = SimplePatternMatcher.match
    with pytest.raises(ValueError), quick_matching():
        raise ValueError
    assert SimplePatternMatcher.match is match
