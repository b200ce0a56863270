"""The choices of an export, checked before any work."""

from dataclasses import dataclass
from typing import Any, Self

from optimum_si.config.validators import check_choice, check_integer, check_number
from optimum_si.errors import ConfigurationError, ExportError
from optimum_si.onnx.choices import DEVICES, DTYPES, OPSETS, RUNTIMES, WEIGHTS


@dataclass(frozen=True)
class ExportOptions:
    """What an export is for and how it stores weights.

    Args:
        device: one of :data:`DEVICES`.
        dtype: dtype of the stored weights, one of :data:`DTYPES`.
        packing: options of ``sparsify``; None stores all weights with their zeros.
        opset: version of the ONNX operators; None leaves it to the exporter.
        runtime: one of :data:`RUNTIMES`.
    """

    device: str
    dtype: str
    packing: dict[str, Any] | None
    opset: int | None
    runtime: str

    @classmethod
    def checked(
        cls,
        device: str,
        dtype: str | None,
        weights: str,
        sparse_min: float | None,
        include: str | list[str] | None,
        exclude: str | list[str] | None,
        opset: int | None,
        runtime: str,
    ) -> Self:
        """The options that ``export`` was given, with the default dtype of the device.

        Raises:
            ConfigurationError: for an option that is unknown, out of range, or contradicts another one.
            ExportError: for what TensorRT or the exporter cannot do.
        """
        check_choice("device", device, DEVICES)
        check_choice("runtime", runtime, RUNTIMES)
        if dtype is None:
            dtype = "fp32" if device == "cpu" else "fp16"
        check_choice("values", dtype, DTYPES)
        if device == "tensorrt" and dtype != "fp16":
            raise ExportError(
                f"device='tensorrt' with values={dtype!r}: TensorRT prunes 2:4 in fp16, and its sparse kernels take "
                "no quantized MatMulNBits: leave values out, or export for 'cuda'."
            )
        if opset is not None:
            check_integer("opset", opset, minimum=OPSETS[0])
            if opset > OPSETS[1]:
                raise ExportError(f"opset={opset}: the exporter writes {OPSETS[0]} to {OPSETS[1]}.")
        packing = _packing(weights, device, sparse_min, include, exclude)
        return cls(device, dtype, packing, opset, runtime)

    @property
    def computed_dtype(self) -> str:
        """What the graph computes in before it is quantized: packed weights in fp16 are multiplied in fp32."""
        return "fp16" if self.dtype == "fp16" and self.packing is None else "fp32"


def _packing(
    weights: str,
    device: str,
    sparse_min: float | None,
    include: str | list[str] | None,
    exclude: str | list[str] | None,
) -> dict[str, Any] | None:
    check_choice("weights", weights, WEIGHTS)
    options = {"sparse_min": sparse_min, "include": include, "exclude": exclude}
    given = {name: value for name, value in options.items() if value is not None}
    if weights == "dense":
        if given:
            raise ConfigurationError(f"{', '.join(given)} belong to weights='sparse': set it, or leave them out.")
        return None
    if device != "cpu":
        raise ConfigurationError(
            f"weights='sparse' with device={device!r}: the sparse kernels are for 'cpu'; TensorRT takes 2:4 as dense "
            "weights."
        )
    if sparse_min is not None:
        check_number("sparse_min", sparse_min, minimum=0, below=1)
    return {name: [value] if isinstance(value, str) else value for name, value in given.items()}
