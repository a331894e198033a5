"""PyTorch on CUDA or the CPU: the engine that the others are compared with.

It runs the method itself, not the ONNX files, with the weights of the model folder. It takes the GPU
`gpu_id` where CUDA is there, else the CPU; `describe` says which, and why. On a GPU it is compared with ONNX
Runtime once, recorded launches included.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from copy import copy

import torch
from torch import Tensor

from vss_ros.core.engines.gpu_check import checked
from vss_ros.core.engines.torch_device import (
    CpuDevice,
    CudaDevice,
    Recording,
    TorchDeviceEngine,
    torch_errors,
    why_no_cuda,
)
from vss_ros.core.errors import EngineError, PrecisionError
from vss_ros.core.model.folder import ModelFolder
from vss_ros.core.processor import usable_cores
from vss_ros.core.settings import EngineSettings
from vss_ros.exporting.fused_norms import fuse_norms
from vss_ros.exporting.lower_precision import lower_precision
from vss_ros.exporting.weights import load_method
from vss_ros.methods.method import Method
from vss_ros.torch_engine.channels_last import channels_last

DTYPES = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}
Tensors = dict[str, Tensor]
_log = logging.getLogger(__name__)


class TorchEngine(TorchDeviceEngine):
    """Runs the graphs of a method. Arrays are tensors on its device, where the state stays.

    Args:
        method: on the CPU, in eval mode; it is changed.
        record: whether to record the launches of each graph as a CUDA graph. Only on a GPU.
    """

    name = 'torch'

    def __init__(self, method: Method, device: CpuDevice, precision: str, record: bool = False) -> None:
        if precision != 'fp32':
            lower_precision(method, DTYPES[precision])
        with device.use():
            self._method = channels_last(method.to(device.torch_device))
        super().__init__(device, {graph: method.inputs_of(graph) for graph in method.graphs})
        self._precision = precision
        self._record = record and device.kind == 'cuda'
        self._recordings: dict[str, Callable[[Tensors], Tensors]] = {}
        self.notes: dict[str, str] = {}
        if record:
            self.notes['cuda_graphs'] = 'on' if self._record else 'off: there is no GPU'

    @classmethod
    def load(cls, model: ModelFolder, settings: EngineSettings) -> TorchEngine:
        method = load_method(model)
        device = _device(settings)
        _check_precision(settings.precision, device)
        if settings.threads or device.kind == 'cpu':
            torch.set_num_threads(settings.threads or usable_cores())
        frame = torch.zeros(1, *model.image_size, 3, dtype=torch.uint8)
        fuse_norms(method, lambda: method.examples(frame))
        with torch_errors(f'model {model.name} cannot be loaded to {device.name}'):
            engine = cls(method, device, settings.precision, settings.cuda_graphs)
        if device.kind == 'cpu':
            engine.notes['no_gpu'] = why_no_cuda(settings.gpu_id)
            if torch.version.cuda is not None:  # somebody installed that for a GPU
                _log.warning('engine torch runs on the CPU: %s', engine.notes['no_gpu'])
            return engine
        try:
            what = f'PyTorch {torch.__version__} ({settings.precision}) on {device.name}'
            facts = torch.__version__, torch.version.cuda, torch.backends.cudnn.version(), device.name
            engine.notes['self_check'] = checked(engine, model, settings, what, facts)
        except BaseException:
            engine.close()
            raise
        return engine

    def _compute(self, graph: str, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return self._runner(graph, inputs)(inputs)

    def second(self) -> TorchEngine:
        second = copy(self)  # the networks are the same
        second._device = self._device.second()
        second._recordings = {}
        second._has_run = threading.local()
        second._is_second = True
        return second

    def describe(self) -> dict[str, str]:
        return {
            'engine': self.name,
            'version': torch.__version__,
            'device': self._device.name,
            'precision': self._precision,
            'threads': str(torch.get_num_threads()),
            **self.notes,
        }

    def close(self) -> None:
        self._device.settle()
        self._recordings.clear()
        self.__dict__.pop('_method', None)  # may be closed again
        self._device.close()

    def _runner(self, graph: str, inputs: Tensors) -> Callable[[Tensors], Tensors]:
        """What runs a graph: the method itself, or a recording of it, made at first use."""

        def eager(tensors: Tensors) -> Tensors:
            return self._method.run(graph, tensors)

        if not self._record:
            return eager
        if graph not in self._recordings:
            try:
                self._recordings[graph] = Recording(eager, inputs)
            except RuntimeError as error:  # after which PyTorch may go on as if it were still recording
                raise EngineError(
                    f'graph {graph!r} cannot be recorded: {error}; set cuda_graphs to false, and start a new '
                    'process'
                ) from error
        return self._recordings[graph]


def _device(settings: EngineSettings) -> CpuDevice:
    if torch.cuda.is_available():
        return CudaDevice(settings.gpu_id)
    if settings.gpu_id:
        raise EngineError(f'gpu_id is {settings.gpu_id}; PyTorch sees 0 CUDA GPUs here')
    return CpuDevice()


def _check_precision(precision: str, device: CpuDevice) -> None:
    if precision not in DTYPES:
        raise PrecisionError(f'engine torch has no precision {precision}; use one of {", ".join(DTYPES)}')
    if precision == 'fp16' and device.kind == 'cpu':
        raise PrecisionError('engine torch runs fp16 on CUDA only, which is not there; set precision to fp32')
    if precision == 'bf16' and not device.computes_bf16():
        raise PrecisionError('this processor has no bf16 arithmetic; set precision to fp32')
