"""Kernels for sparse weights on the CPU: a custom-op library for ONNX Runtime, and the packed weights that it reads.

``onnxruntime.SessionOptions.register_custom_ops_library(str(library_path()))`` teaches any session the operator
``optimum.si::SparseLinear``; the classes of ``optimum_si.onnx`` do so by themselves.
"""

from .build import KernelsUnavailable
from .library import library_path
from .pack import pack, unpack
from .packed import DTYPES, FORMATS, Packed


__all__ = ["DTYPES", "FORMATS", "KernelsUnavailable", "Packed", "library_path", "pack", "unpack"]
