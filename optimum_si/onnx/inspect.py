"""What the matrices of an exported graph hold, and so which provider can use their zeros."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from optimum_si.errors import CheckpointError
from optimum_si.report import format_table

from .external_data import check_external_data
from .manifest import check_files


#: Below this fraction of zeros a matrix counts as dense: rounding to 4 bits alone makes a tenth of the weights zero.
SPARSE_FROM = 0.25


@dataclass(frozen=True)
class CheckedMatrix:
    """One constant matrix of a graph.

    Args:
        file: file name of the graph.
        name: name of the matrix in it.
        rows, columns: K, which is summed over, and N.
        stored: how its values are stored, such as "float32", "int4" or, without zeros, "fp16 2:4".
        zeros: fraction of exact zeros.
        pattern: "2:4", "4:8" or None; 2:4 is named where both hold.
        usable_by: which provider computes faster with its zeros, or None.
    """

    file: str
    name: str
    rows: int
    columns: int
    stored: str
    zeros: float
    pattern: str | None
    usable_by: str | None

    def to_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)


def check(directory: str | Path) -> list[CheckedMatrix]:
    """Every constant matrix of the graphs in a directory, with the pattern that holds along its inputs.

    Raises:
        CheckpointError: when there is no graph, or its files are damaged.
    """
    paths = sorted(Path(directory).glob("*.onnx"))
    if not paths:
        raise CheckpointError(f"{str(directory)!r} holds no .onnx file: give what `optimum-cli si export` wrote.")
    result = []
    for path in paths:
        check_files(path, verify=True)
        check_external_data(path)
        result += _check_graph(path)
    return result


def _check_graph(path: Path) -> list[CheckedMatrix]:
    import onnx_ir

    from .matrices import matrices

    try:
        model = onnx_ir.load(str(path))
        if not len(model.graph):
            raise ValueError("it has no nodes.")
        return [_checked(path, matrix) for matrix in matrices(model)]
    except Exception as error:  # of protobuf, onnx_ir or numpy, whatever is damaged
        raise CheckpointError(f"{str(path)!r} cannot be read as a graph: {error} Export the model again.") from error


def _checked(path: Path, matrix: Any) -> CheckedMatrix:
    rows, columns = matrix.values.shape
    pattern = None
    if matrix.zeros >= SPARSE_FROM:
        pattern = next((f"{n}:{m}" for n, m in ((2, 4), (4, 8)) if matrix.holds(n, m)), None)
    usable_by = "TensorRT" if pattern == "2:4" and matrix.dtype in ("float32", "float16") else None
    if matrix.operator == "SparseLinear":
        usable_by = "CPU"
    return CheckedMatrix(path.name, matrix.name, rows, columns, matrix.dtype, matrix.zeros, pattern, usable_by)


def summary(found: list[CheckedMatrix]) -> str:
    """A table of the matrices, and a sentence on what their zeros are good for."""
    header = ["graph", "matrix", "inputs x outputs", "stored", "zeros", "pattern", "faster with"]
    rows = [
        [
            matrix.file,
            matrix.name,
            f"{matrix.rows} x {matrix.columns}",
            matrix.stored,
            f"{matrix.zeros:.1%}",
            matrix.pattern or "-",
            matrix.usable_by or "-",
        ]
        for matrix in found
    ]
    sparse = [matrix for matrix in found if matrix.zeros >= SPARSE_FROM]
    packed = [matrix for matrix in found if matrix.usable_by == "CPU"]
    usable = [matrix for matrix in found if matrix.usable_by == "TensorRT"]
    lines = [
        format_table(header, rows),
        f"{len(sparse)} of {len(found)} matrices are sparse; {sum(m.pattern == '2:4' for m in found)} are 2:4.",
    ]
    if packed:
        lines.append(f"{len(packed)} are stored without their zeros, for optimum-si's own kernels on the CPU.")
    if usable:
        lines.append(
            f"{len(usable)} can use TensorRT's 2:4 kernels: optimum_si.onnx.providers('tensorrt'). The CPU and CUDA "
            "providers compute them as if they were dense."
        )
    elif len(sparse) > len(packed):
        lines.append("ONNX Runtime computes these as if they were dense; TensorRT's sparse kernels need 2:4 in fp16.")
    return "\n".join(lines)
