"""Fits a trained model to what it meets: what it expects of itself, how sure it is, how much it corrects.

Imports `core`, `evaluation`, `exporting`, `methods`, `torch_engine` and PyTorch; `scheduler.py` only `core`.
"""
