"""PyTorch as one writes it, for comparison: fp32 (not TF32), no layout, stream or pinned memory of ours.

`vss bench --engine eager` measures it beside the engines; nothing else uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from vss_ros.core.engines.interface import take_inputs
from vss_ros.core.engines.torch_device import compute_in_fp32, why_no_cuda
from vss_ros.core.errors import EngineError, PrecisionError
from vss_ros.core.model.folder import ModelFolder
from vss_ros.core.settings import EngineSettings
from vss_ros.exporting.weights import load_method


class EagerEngine:
    """The method's graphs, called one by one. Arrays are tensors on the GPU if there is one, else the CPU."""

    name = 'eager'

    def __init__(self, model: ModelFolder, device: torch.device) -> None:
        self._method = load_method(model).to(device)
        self._device = device
        self._inputs = {graph: self._method.inputs_of(graph) for graph in self._method.graphs}
        self.notes: dict[str, str] = {}

    @classmethod
    def load(cls, model: ModelFolder, settings: EngineSettings) -> EagerEngine:
        if settings.precision != 'fp32':
            raise PrecisionError(f'eager PyTorch is measured in fp32, precision is {settings.precision}')
        if settings.threads:
            torch.set_num_threads(settings.threads)
        has_gpu = torch.cuda.is_available()
        if (has_gpu or settings.gpu_id) and (why_not := why_no_cuda(settings.gpu_id)):
            raise EngineError(why_not)
        compute_in_fp32()
        return cls(model, torch.device('cuda', settings.gpu_id) if has_gpu else torch.device('cpu'))

    def run(self, graph: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
        given = take_inputs(graph, self._inputs, tensors)
        uploaded = self.upload(graph, given)
        with torch.inference_mode():
            return uploaded | self._method.run(graph, {**given, **uploaded})

    def upload(self, graph: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
        given = take_inputs(graph, self._inputs, tensors)
        return {
            name: torch.from_numpy(np.ascontiguousarray(array)).to(self._device)
            for name, array in given.items()
            if isinstance(array, np.ndarray)
        }

    def synchronise(self) -> None:
        if self._device.type == 'cuda':
            torch.cuda.synchronize(self._device)

    def second(self) -> EagerEngine:
        raise EngineError('eager PyTorch is only measured, by one thread')

    def to_host(self, tensor: Any) -> np.ndarray:
        return tensor.cpu().numpy() if isinstance(tensor, torch.Tensor) else tensor

    def describe(self) -> dict[str, str]:
        on_gpu = self._device.type == 'cuda'
        return {
            'engine': self.name,
            'version': torch.__version__,
            'device': torch.cuda.get_device_name(self._device) if on_gpu else 'cpu',
            'precision': 'fp32',
            'threads': str(torch.get_num_threads()),
            **self.notes,
        }

    def close(self) -> None:
        del self._method
