"""A method becomes a model folder, and a method again: graphs, precisions, weights, and the proof of them.

Imports `core`, `methods` and PyTorch; onnx inside what needs it.
"""
