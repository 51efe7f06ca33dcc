"""Weights from and to other tools: PyTorch, Keras, ONNX. Each is imported when it is asked for."""
from .onnx import export_onnx, import_onnx
from .torch import to_torch
from .weights import from_keras, from_torch, torch_arrays
