"""Weights and networks from and to other tools: PyTorch, Keras, ONNX. What belongs to one of them is imported when it is asked for."""
from .onnx import export_onnx, import_onnx
from .torch import to_torch
from .weights import from_keras, from_torch, torch_arrays

__all__ = ['export_onnx', 'from_keras', 'from_torch', 'import_onnx', 'to_torch', 'torch_arrays']   # without the modules torch and onnx here
