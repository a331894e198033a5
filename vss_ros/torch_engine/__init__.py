"""The networks themselves as an engine, on CUDA or a CPU: what the other engines are compared with.

`core/engines` knows it by name. Imports `core`, `methods`, `exporting` and PyTorch.
"""
