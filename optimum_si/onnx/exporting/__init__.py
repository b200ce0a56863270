"""From a checkpoint to graphs for ONNX Runtime: trace, simplify, quantize, verify, write."""
