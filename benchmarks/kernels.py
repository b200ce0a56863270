"""Sparse kernels beside the dense ones of ONNX Runtime, one layer at a time, in turns in one process.

    python benchmarks/kernels.py [--sizes 4096] [--rows 1 8 128] [--threads 1 2] [--figure FILE.png] [--json FILE]

``ratio`` is the time of ONNX Runtime's dense fp32 MatMul divided by that of the row: more than 1 is faster. Bytes are
those of the stored weight relative to dense fp32, and the share of bandwidth is what a row reads each second, of what
reading memory alone does on as many threads. ``scale`` is the least time with one thread, if that was measured before,
divided by that of the row. Dense fp16 is a product with a weight that is stored in fp16 and cast in each run, which
ONNX Runtime is kept from folding. Judge by ratios: times move with whatever else the machine does.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
from onnxruntime.capi._pybind_state import quantize_matmul_4bits

from optimum_si.onnx.kernels import DTYPES, Packed, library_path, pack
from optimum_si.onnx.packed_nodes import DOMAIN, packed_node
from optimum_si.report import format_table


#: Format, share of zeros beyond the pattern's, and dtypes of values that have a kernel.
SPARSE = (
    ("2:4", 0.0, DTYPES),
    ("4:8", 0.0, DTYPES),
    ("bitmask", 0.5, DTYPES),
    ("bitmask", 0.7, DTYPES[:3]),
    ("bitmask", 0.9, DTYPES[:1]),
    ("csr", 0.9, DTYPES),
    ("csr", 0.95, DTYPES[:1]),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[4096], help="K = N (default: %(default)s)")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 128], help="of x (default: %(default)s)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="(default: %(default)s)")
    parser.add_argument("--turns", type=int, default=30, help="of each with one row (default: %(default)s)")
    parser.add_argument("--figure", type=Path, help="draw bytes and bandwidth there")
    parser.add_argument("--json", type=Path, help="also write the results there")
    args = parser.parse_args()
    results: list[dict] = []
    for size in args.sizes:
        makers = layers(size)
        for threads in args.threads:
            peak = bandwidth(threads)
            print(f"\n{threads} thread{'s' * (threads > 1)}: reading memory {peak / 1e9:.1f} GB/s")
            for rows in args.rows:
                turns = max(args.turns // (1 + rows // 8), 3)
                found = measured(makers, size, rows, turns, threads)
                for entry in found:
                    entry.update(size=size, rows=rows, threads=threads, peak=peak)
                    entry["scale"] = scale(entry, results)
                results += found
                print(f"\n{size} x {size}, {rows} row{'s' * (rows > 1)} of x\n")
                header = ["", "ratio of medians", "of minima", "ms", "bytes", "bandwidth", "scale"]
                print(format_table(header, [line(entry) for entry in found]), flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if args.figure:
        draw([entry for entry in results if entry["rows"] == 1], args.figure)


def line(entry: dict) -> list[str]:
    share = entry["bytes"] / entry["least"] / entry["peak"]
    return [
        entry["name"],
        f"{entry['ratio']:.2f}",
        f"{entry['ratio_of_minima']:.2f}",
        f"{1e3 * entry['least']:.2f}",
        f"{entry['bytes'] / entry['dense_bytes']:.3f}",
        f"{share:.0%}",
        "" if entry["scale"] is None else f"{entry['scale']:.2f}",
    ]


def scale(entry: dict, results: list[dict]) -> float | None:
    """How many times faster than with one thread, if that was measured."""
    alone = (
        other["least"]
        for other in results
        if other["threads"] == 1 and all(other[key] == entry[key] for key in ("name", "size", "rows"))
    )
    return next((least / entry["least"] for least in alone), None)


def bandwidth(threads: int) -> float:
    """Bytes a second that adding up memory reads."""
    block = np.ones(2**25 // 8)
    blocks = [block.copy() for _ in range(2 * threads)]
    with ThreadPoolExecutor(threads) as pool:
        best = min(_timed(lambda: list(pool.map(np.sum, blocks))) for _ in range(8))
    return sum(each.nbytes for each in blocks) / best


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


#: Makes a session with so many threads.
Maker = Callable[[int], onnxruntime.InferenceSession]


def layers(size: int) -> dict[str, tuple[Maker, int]]:
    """What makes a session, and the bytes of its weight, by name."""
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((size, size)).astype(np.float32)
    found: dict[str, tuple[Maker, int]] = {
        "dense fp32": (partial(_dense, weight), weight.nbytes),
        "dense fp16": (partial(_dense, weight.astype(np.float16)), weight.nbytes // 2),
        "dense int4": (partial(_int4, weight), weight.size // 2 + weight.size // 8),
    }
    for format, share, dtypes in SPARSE:
        kept = _pattern(generator, size, *map(int, format.split(":"))) if ":" in format else None
        kept = generator.random((size, size)) >= share if kept is None else kept
        name = format if ":" in format else f"{format} {share:.0%}"
        for dtype in dtypes:
            packed = pack(weight * kept, format, dtype)
            found[f"{name} {dtype}"] = partial(_sparse, packed), packed.nbytes
    return found


def _pattern(generator: np.random.Generator, size: int, kept: int, of: int) -> np.ndarray:
    ranks = generator.random((size, size // of, of)).argsort(axis=2)
    return (ranks < kept).reshape(size, size)


def _session(nodes: list[ir.Node], x: ir.Value, threads: int) -> onnxruntime.InferenceSession:
    weights = [value for node in nodes for value in node.inputs if value is not None and value.const_value is not None]
    nodes[-1].outputs[0].name = "y"
    nodes[-1].outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    opsets = {"": 18, "com.microsoft": 1, DOMAIN: 1}
    graph = ir.Graph([x], nodes[-1].outputs, nodes=nodes, initializers=weights, opset_imports=opsets, name="layer")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.register_custom_ops_library(str(library_path()))
    # Or a weight in fp16 would be cast once, at load.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _input(columns: int) -> ir.Value:
    return ir.Value(name="x", shape=ir.Shape(["rows", columns]), type=ir.TensorType(ir.DataType.FLOAT))


def _constant(name: str, array: np.ndarray) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    return ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)


def _dense(weight: np.ndarray, threads: int) -> onnxruntime.InferenceSession:
    x, stored = _input(weight.shape[1]), _constant("w", np.ascontiguousarray(weight.T))
    if weight.dtype == np.float32:
        return _session([ir.Node("", "MatMul", [x, stored])], x, threads)
    cast = ir.Node("", "Cast", [stored], [ir.AttrInt64("to", ir.DataType.FLOAT)])
    return _session([cast, ir.Node("", "MatMul", [x, cast.outputs[0]])], x, threads)


def _int4(weight: np.ndarray, threads: int) -> onnxruntime.InferenceSession:
    rows, columns = weight.shape
    codes = np.zeros((rows, columns // 32, 16), np.uint8)
    scales, middles = np.zeros((rows, columns // 32), np.float32), np.zeros((rows, -(-columns // 64)), np.uint8)
    quantize_matmul_4bits(codes, np.ascontiguousarray(weight.T), scales, middles, 32, rows, columns, True)
    numbers = {"K": columns, "N": rows, "bits": 4, "block_size": 32, "accuracy_level": 4}
    x, parts = _input(columns), [_constant("codes", codes), _constant("scales", scales.reshape(-1))]
    attributes = [ir.AttrInt64(name, number) for name, number in numbers.items()]
    return _session([ir.Node("com.microsoft", "MatMulNBits", [x, *parts], attributes)], x, threads)


def _sparse(packed: Packed, threads: int) -> onnxruntime.InferenceSession:
    x, parts = _input(packed.shape[1]), {name: _constant(name, part) for name, part in packed.parts.items()}
    return _session([packed_node(x, packed, parts)], x, threads)


def measured(makers: dict[str, tuple[Maker, int]], size: int, rows: int, turns: int, threads: int) -> list[dict]:
    """Times of all layers in turns; with several threads each beside the dense one alone, see :func:`in_turns`."""
    x = np.random.default_rng(1).standard_normal((rows, size)).astype(np.float32)
    dense = makers["dense fp32"][0](threads)
    if threads == 1:
        sessions = {name: dense if name == "dense fp32" else make(1) for name, (make, _) in makers.items()}
        times = in_turns(sessions, x, turns, 1, 0)
        beside = dict.fromkeys(makers, times["dense fp32"])
    else:
        times, beside = {}, {}
        for name, (make, _) in makers.items():
            two = in_turns({"dense fp32": dense, name: make(threads)}, x, -(-turns // 5), 12, 0.05)
            times[name], beside[name] = two[name][1:], two["dense fp32"][1:]
    return [
        {
            "name": name,
            "ratio": statistics.median(beside[name]) / statistics.median(times[name]),
            "ratio_of_minima": min(beside[name]) / min(times[name]),
            "least": min(times[name]),
            "median": statistics.median(times[name]),
            "bytes": makers[name][1],
            "dense_bytes": makers["dense fp32"][1],
        }
        for name in makers
    ]


def in_turns(
    sessions: dict[str, onnxruntime.InferenceSession], x: np.ndarray, turns: int, together: int, pause: float
) -> dict[str, list[float]]:
    """Seconds of each run: ``together`` of a session, ``pause`` seconds, then the next one's.

    Each session has threads of its own, which go on spinning for a while and would disturb those of the next one.
    """
    bound = {}
    for name, session in sessions.items():
        binding = session.io_binding()
        binding.bind_cpu_input("x", x)
        binding.bind_output("y")
        session.run_with_iobinding(binding)
        bound[name] = partial(session.run_with_iobinding, binding)
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(turns):
        for name, run in bound.items():
            time.sleep(pause)
            times[name] += [_timed(run) for _ in range(together)]
    return times


def draw(results: Iterable[dict], path: Path) -> None:
    """Time over bytes, relative to dense fp32: what lies on the line is bound by memory alone."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    threads = min(entry["threads"] for entry in results)
    # What an export takes, and bitmasks once: at more zeros they lie beside each other.
    left_out = "bitmask 70%", "bitmask 90%", "bitmask 50% int4", "4:8 int4", "csr 90% int4"
    shown = [entry for entry in results if entry["threads"] == threads and not entry["name"].startswith(left_out)]
    figure, axes = pyplot.subplots(figsize=(7, 5))
    bounds = [0.05, 1.1]
    axes.plot(bounds, bounds, color="grey", linewidth=1, label="bound by memory")
    for entry in shown:
        place = entry["bytes"] / entry["dense_bytes"], 1 / entry["ratio"]
        axes.scatter(*place, color="tab:orange" if entry["name"].startswith("dense") else "tab:blue", s=25)
        axes.annotate(entry["name"], place, fontsize=7, xytext=(4, 3), textcoords="offset points")
    axes.set(xscale="log", yscale="log", xlabel="bytes of the weight, of dense fp32", ylabel="time, of dense fp32")
    axes.set_title(f"One row of x, {threads} thread{'s' * (threads > 1)}")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
