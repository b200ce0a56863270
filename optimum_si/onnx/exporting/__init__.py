"""From a checkpoint to graphs for ONNX Runtime: trace, rename, pack, quantize, write, verify."""
