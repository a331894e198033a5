"""PyTorch on CUDA or the CPU: the engine that the others are compared with.

It runs the method itself, not the ONNX files, with the weights of the model folder. It takes the GPU
`gpu_id` where CUDA is there, else the CPU; `describe` says which.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vss_ros.core.engines import take_inputs
from vss_ros.core.errors import EngineError
from vss_ros.core.model_folder import ModelFolder
from vss_ros.core.settings import EngineSettings
from vss_ros.methods.method import Method
from vss_ros.methods.weights import load_method

DTYPES = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}


class TorchEngine:
    """Runs the graphs of a method. Arrays are tensors on its device, where the state stays."""

    name = 'torch'

    def __init__(self, method: Method, device: torch.device, precision: str) -> None:
        self._method = method.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._device = device
        self._precision = precision
        self._inputs = {graph: method.inputs_of(graph) for graph in method.graphs}
        self.notes: dict[str, str] = {}

    @classmethod
    def load(cls, model: ModelFolder, settings: EngineSettings) -> TorchEngine:
        device = _device(settings)
        _check_precision(settings.precision, device)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        if device.type == 'cuda':
            torch.backends.cudnn.benchmark = True  # shapes never change
            torch.backends.cudnn.allow_tf32 = settings.precision != 'fp32'  # fp32 is the reference
        return cls(load_method(model), device, settings.precision)

    def run(self, graph: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
        given = take_inputs(graph, self._inputs, tensors)
        inputs = {name: self._on_device(tensor) for name, tensor in given.items()}
        lower = self._precision != 'fp32'
        with torch.inference_mode(), torch.autocast(self._device.type, DTYPES[self._precision], lower):
            outputs = self._method.run(graph, inputs)
        uploaded = {name: tensor for name, tensor in inputs.items() if tensor is not given[name]}
        return uploaded | outputs

    def to_host(self, tensor: Any) -> np.ndarray:
        if not isinstance(tensor, Tensor):
            return tensor
        # numpy has no bfloat16, and nobody wants float16 on the host
        return (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy()

    def describe(self) -> dict[str, str]:
        on_gpu = self._device.type == 'cuda'
        return {
            'engine': self.name,
            'version': torch.__version__,
            'device': torch.cuda.get_device_name(self._device) if on_gpu else 'cpu',
            'precision': self._precision,
            'threads': str(torch.get_num_threads()),
            **self.notes,
        }

    def close(self) -> None:
        del self._method
        if self._device.type == 'cuda':
            torch.cuda.empty_cache()

    def _on_device(self, tensor: Any) -> Tensor:
        if not isinstance(tensor, Tensor):
            # torch cannot look at mirrored arrays, and warns about those it must not write to
            tensor = torch.from_numpy(np.require(tensor, requirements=['C', 'W']))
        return tensor.to(self._device)


def _device(settings: EngineSettings) -> torch.device:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if settings.gpu_id >= max(count, 1):
        raise EngineError(f'gpu_id is {settings.gpu_id}; PyTorch sees {count} CUDA GPUs here')
    return torch.device('cuda', settings.gpu_id) if count else torch.device('cpu')


def _check_precision(precision: str, device: torch.device) -> None:
    if precision == 'fp16' and device.type == 'cpu':
        raise EngineError('engine torch runs fp16 on CUDA only, which is not there; set precision to fp32')
    if precision == 'bf16':
        on_gpu = device.type == 'cuda'
        if not (torch.cuda.is_bf16_supported() if on_gpu else torch.ops.mkldnn._is_mkldnn_bf16_supported()):
            raise EngineError('this processor has no bf16 arithmetic; set precision to fp32')
