"""A processor as PyTorch sees it: memory, one stream of work, and the ways in and out.

What the engines `torch` and `tensorrt` share. All work of an engine, copies included, goes through one
stream that is not the default one: work on the default stream waits for everything else on the GPU.
"""

from __future__ import annotations

import gc
import logging
import platform
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import numpy as np

from vss_ros.core.engines.interface import take_inputs
from vss_ros.core.errors import EngineError, MissingLibraryError

try:
    import torch
except ModuleNotFoundError as error:
    raise MissingLibraryError('torch', 'train') from error
except (ImportError, OSError) as error:  # it is there, a native library that it needs is not
    raise EngineError(f'PyTorch cannot be loaded: {error}') from error

_log = logging.getLogger(__name__)
RING = 2  # pinned buffers per shape: one is filled while the other is still being copied
# What waits for all of a GPU breaks off a recording that another thread is making on it. cuDNN does so in its
# trials of kernels, which each thread makes for itself in its first run of a graph; TensorRT may where it
# loads an engine. So these and recordings take turns.
# Building an engine takes none, though it may break a recording off, too. It lasts for minutes, and as long
# every thread would wait that runs a graph for the first time, that of a camera among them. Recordings are
# made while a model is loaded; one that is broken off makes that fail with the reason.
ONE_AT_A_TIME = threading.RLock()


class CpuDevice:
    """The CPU. Tensors share memory with the numpy arrays they come from."""

    kind = 'cpu'
    name = 'cpu'
    architecture = platform.machine()
    stream_handle = 0

    def __init__(self) -> None:
        self.torch_device = torch.device('cpu')

    @contextmanager
    def use(self) -> Iterator[None]:
        """Everything inside runs on this device, in its stream."""
        yield

    def upload(self, array: Any) -> torch.Tensor:
        """A numpy array as a tensor on this device; a tensor of this device comes back as it is."""
        if isinstance(array, torch.Tensor):
            return array.to(self.torch_device)
        # torch cannot look at mirrored arrays, and warns about those it must not write to
        return torch.from_numpy(np.require(array, requirements=['C', 'W']))

    def download(self, tensor: Any) -> np.ndarray:
        """A tensor of this device as a numpy array; half precision becomes float32."""
        if not isinstance(tensor, torch.Tensor):
            return tensor
        # numpy has no bfloat16, and nobody wants float16 on the host
        return (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy()

    def second(self) -> CpuDevice:
        """The same processor for another thread, with a stream and buffers of its own."""
        return self

    def computes_bf16(self) -> bool:
        """Whether it has arithmetic for bf16, and does not only act as if."""
        # PyTorch may be built without oneDNN, as some are for ARM, and then has no such function.
        return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()

    def synchronise(self) -> None:
        """Waits until the device has done all that was asked of it."""

    def settle(self) -> None:
        """Waits before things are freed; a device that has failed is told of, and not waited for."""

    def close(self) -> None:
        """Gives the memory that is no longer used back."""


class CudaDevice(CpuDevice):
    """One GPU and one stream on it.

    An upload copies into pinned memory and returns at once; the copy to the GPU runs in the stream while
    the host goes on.

    Args:
        index: which GPU, from 0.
        priority: of the stream; the lower number goes first.
    Raises:
        EngineError: PyTorch sees no such GPU; the message says why.
    """

    kind = 'cuda'

    def __init__(self, index: int = 0, priority: int = -1) -> None:
        why_not = why_no_cuda(index)
        if why_not:
            raise EngineError(why_not)
        compute_in_fp32()
        self.torch_device = torch.device('cuda', index)
        self.name = torch.cuda.get_device_name(index)
        major, minor = torch.cuda.get_device_capability(index)
        self.architecture = f'sm_{major}{minor}'
        self.stream = torch.cuda.Stream(self.torch_device, priority)
        self.stream_handle = self.stream.cuda_stream
        self._pinned: dict[Any, list[tuple[torch.Tensor, torch.cuda.Event]]] = {}

    @contextmanager
    def use(self) -> Iterator[None]:
        caller = torch.cuda.current_stream(self.torch_device)  # may still be computing what it hands over
        if caller != self.stream and not caller.query():
            self.stream.wait_stream(caller)
        with torch.cuda.device(self.torch_device), torch.cuda.stream(self.stream):
            yield

    def upload(self, array: Any) -> torch.Tensor:
        with self.use(), torch.inference_mode():  # what is made in that mode can be written in it only
            if isinstance(array, torch.Tensor):
                if array.is_cuda:  # it may be of another stream, which must not reuse its memory too early
                    array.record_stream(self.stream)
                return array.to(self.torch_device, non_blocking=True)
            source = torch.from_numpy(np.require(array, requirements=['C', 'W']))
            ring = self._pinned.setdefault((source.shape, source.dtype), [])
            if len(ring) < RING:
                pinned, copied = torch.empty_like(source, pin_memory=True), torch.cuda.Event()
            else:
                pinned, copied = ring.pop(0)
                copied.synchronize()  # the GPU has read what the buffer held before
            pinned.copy_(source)
            tensor = pinned.to(self.torch_device, non_blocking=True)
            copied.record(self.stream)
            ring.append((pinned, copied))
            return tensor

    def download(self, tensor: Any) -> np.ndarray:
        with self.use():
            return super().download(tensor)

    def second(self) -> CudaDevice:
        self.synchronise()  # weights may still be laid out in this stream
        return CudaDevice(self.torch_device.index, priority=0)  # no frame waits for what is computed beside

    def computes_bf16(self) -> bool:
        with torch.cuda.device(self.torch_device):
            return torch.cuda.is_bf16_supported(including_emulation=False)

    def synchronise(self) -> None:
        with torch_errors(f'{self.name} failed'):
            self.stream.synchronize()

    def settle(self) -> None:
        try:
            self.synchronise()
        except EngineError as error:
            _log.error('%s; nothing runs on that GPU again before this process is restarted', error)

    def close(self) -> None:
        self._pinned.clear()
        try:
            with ONE_AT_A_TIME:  # PyTorch gives nothing back while something is recorded
                torch.cuda.empty_cache()
        except RuntimeError as error:
            _log.error('%s gives no memory back: %s', self.name, _first_line(error))


class TorchDeviceEngine:
    """The ways in and out of an engine whose tensors, the state among them, live on a device of PyTorch.

    Base of the engines `torch` and `tensorrt`, each of which says how a graph is computed.

    Args:
        inputs: names of the tensors that each graph takes.
    """

    _is_second: bool = False  # made by `second`, for another thread

    def __init__(self, device: CpuDevice, inputs: Mapping[str, Sequence[str]]) -> None:
        self._device = device
        self._inputs = inputs
        self._has_run = threading.local()  # the graphs that a thread has run

    def _compute(self, graph: str, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Run one graph on tensors of the device, in its stream."""
        raise NotImplementedError

    def run(self, graph: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
        given = take_inputs(graph, self._inputs, tensors)
        with torch_errors(f'graph {graph!r} failed'), self._device.use(), torch.inference_mode():
            inputs = {name: self._device.upload(tensor) for name, tensor in given.items()}
            known = self._has_run.__dict__.setdefault('graphs', set())
            with nullcontext() if graph in known else ONE_AT_A_TIME:
                outputs = self._compute(graph, inputs)
            known.add(graph)
            if self._is_second:
                self._device.synchronise()  # what it gives is read in another stream
        return _moved(given, inputs) | outputs

    def upload(self, graph: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
        given = take_inputs(graph, self._inputs, tensors)
        with torch_errors(f'the inputs of graph {graph!r} cannot be uploaded'):
            inputs = {name: self._device.upload(tensor) for name, tensor in given.items()}
        return _moved(given, inputs)

    def synchronise(self) -> None:
        self._device.synchronise()

    def to_host(self, tensor: Any) -> np.ndarray:
        with torch_errors('results cannot be read'):  # where a failure of any graph before shows
            return self._device.download(tensor)


def _moved(given: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the inputs that were not on the device before."""
    return {name: tensor for name, tensor in inputs.items() if tensor is not given[name]}


class Recording:
    """A graph as one CUDA graph: one launch instead of hundreds.

    A recording reads and writes fixed addresses, so inputs are copied to them and outputs from them, on
    the GPU. The stream that is current records and replays.

    Args:
        call: computes the graph in that stream.
        inputs: of the sizes and kinds that all others must have.
    Raises:
        RuntimeError: something in it cannot be recorded.
    """

    def __init__(
        self,
        call: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
        inputs: dict[str, torch.Tensor],
    ) -> None:
        self._inputs = {name: tensor.clone() for name, tensor in inputs.items()}
        with ONE_AT_A_TIME:
            for _ in range(3):  # libraries choose their kernels and take their memory at first use
                call(self._inputs)
            torch.cuda.current_stream().synchronize()
            self._graph = torch.cuda.CUDAGraph()
            with _no_garbage_collected():
                # Other threads take memory and run graphs meanwhile; they must not wait for all of the GPU.
                self._graph.capture_begin(capture_error_mode='thread_local')
                try:
                    self._outputs = call(self._inputs)
                except BaseException:
                    with suppress(RuntimeError):  # that it was broken off, which hides why
                        self._graph.capture_end()
                    raise
                self._graph.capture_end()

    def __call__(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        for name, tensor in inputs.items():
            recorded = self._inputs[name]
            if (tensor.shape, tensor.dtype) != (recorded.shape, recorded.dtype):  # a copy would fit them
                raise EngineError(
                    f'{name} was recorded as {recorded.dtype} {tuple(recorded.shape)}, now it is '
                    f'{tensor.dtype} {tuple(tensor.shape)}'
                )
            recorded.copy_(tensor, non_blocking=True)
        self._graph.replay()
        return {name: tensor.clone() for name, tensor in self._outputs.items()}


@contextmanager
def _no_garbage_collected() -> Iterator[None]:
    """An old recording or engine that Python happens to free meanwhile would break a recording off."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def why_no_cuda(index: int) -> str:
    """Why GPU `index` cannot be used through PyTorch, in a sentence; empty if it can."""
    if torch.version.cuda is None:
        return (
            f'PyTorch {torch.__version__} was built without CUDA; install the CUDA build of PyTorch that '
            'fits this driver'
        )
    if not torch.cuda.is_available():
        return (
            f'PyTorch {torch.__version__} finds no usable CUDA GPU; look at nvidia-smi, and at whether the '
            f'driver knows CUDA {torch.version.cuda}'
        )
    count = torch.cuda.device_count()
    if index >= count:
        return f'gpu_id is {index}; PyTorch sees {count} CUDA GPUs here, counted from 0'
    try:
        torch.zeros(1, device=f'cuda:{index}').add(1).item()
    except RuntimeError as error:  # of another architecture than this PyTorch was built for, or all in use
        return f'PyTorch {torch.__version__} cannot compute on GPU {index}: {_first_line(error)}'
    return ''


@contextmanager
def torch_errors(what: str) -> Iterator[None]:
    """PyTorch's errors, those of CUDA among them, as an EngineError that begins with `what`."""
    try:
        yield
    except RuntimeError as error:
        raise EngineError(f'{what} in PyTorch {torch.__version__}: {_first_line(error)}') from error


def _first_line(error: RuntimeError) -> str:
    return str(error).strip().partition('\n')[0]


def compute_in_fp32() -> None:
    """From now on fp32 in PyTorch is fp32, not TF32, for every engine of this process.

    That is a setting of the process. Were it another for each engine, one would change what others compute.
    The same holds for how kernels are chosen: by trial, since shapes never change.
    """
    allow_tf32(False)
    torch.backends.cudnn.benchmark = True


def allow_tf32(is_allowed: bool) -> None:
    """Whether fp32 in PyTorch may be TF32 from now on, in convolutions and products of this process."""
    cudnn: Any = torch.backends.cudnn
    matmul: Any = torch.backends.cuda.matmul
    with warnings.catch_warnings():
        # PyTorch 2.9 has other names, and warns of these; but where the two disagree, reading these fails.
        warnings.simplefilter('ignore')
        cudnn.allow_tf32 = matmul.allow_tf32 = is_allowed
    if hasattr(cudnn, 'conv'):
        backends: Any = torch.backends  # what those have that PyTorch sets back, as its export does
        for kind in (backends, cudnn.conv, cudnn.rnn, matmul):
            kind.fp32_precision = 'tf32' if is_allowed else 'ieee'


def warp(features: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """The graph `warp` of every method, for engines that must not run GridSample themselves.

    Args:
        features: float32 (N, C, h, w).
        flow: in cells, float32 (N, 2, h, w), from the current frame to that of the features.
    Returns:
        features read where the flow points, bilinearly; beyond the border the border cell.
    """
    height, width = flow.shape[2:]
    columns = torch.arange(width, dtype=torch.float32, device=flow.device)
    rows = torch.arange(height, dtype=torch.float32, device=flow.device)[:, None]
    x = (columns + flow[:, 0]) * (2 / (width - 1)) - 1
    y = (rows + flow[:, 1]) * (2 / (height - 1)) - 1
    return torch.nn.functional.grid_sample(
        features, torch.stack((x, y), -1), mode='bilinear', padding_mode='border', align_corners=True
    )
