"""What an export may be for, and how it may store weights. Imports nothing: the command line shows these choices."""

#: Providers of ONNX Runtime that graphs are written for.
DEVICES = ("cpu", "cuda", "tensorrt")
#: Of stored weights; int8 and int4 are quantized.
DTYPES = ("fp32", "fp16", "int8", "int4")
#: Whether zeros are stored.
WEIGHTS = ("dense", "sparse")
#: Programs that decode.
RUNTIMES = ("onnxruntime", "genai")
#: The oldest and the newest version of the operators that the exporter writes.
OPSETS = (18, 23)
