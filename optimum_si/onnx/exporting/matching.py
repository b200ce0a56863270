"""Rewriting a graph in time that grows with its nodes: onnxscript's search for patterns with several results."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def quick_matching() -> Iterator[None]:
    """Patterns with several results are tried only at nodes whose operator is that of the first result.

    onnxscript (0.7) tries such a pattern at every node, and lists all nodes of the graph each time, before it compares
    that operator: the one pattern of this kind in its default rules, two slices that become a split, makes most of the
    time of exporting a model of 30 blocks. What is rewritten is the same. Versions without this search are left alone.
    """
    try:
        from onnxscript.rewriter._basics import MatchResult
        from onnxscript.rewriter._matcher import SimplePatternMatcher
    except ImportError:
        yield
        return
    match = SimplePatternMatcher.match

    def quick(self: Any, model: Any, graph: Any, node: Any, **options: Any) -> Any:
        results = self.pattern.output_nodes
        operator = results[0].op_identifier() if len(results) > 1 else None
        if operator is not None and operator != node.op_identifier():
            return MatchResult().fail("another operator")
        return match(self, model, graph, node, **options)

    SimplePatternMatcher.match = quick  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        SimplePatternMatcher.match = match  # type: ignore[method-assign]
