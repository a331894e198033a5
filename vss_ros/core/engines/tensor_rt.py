"""TensorRT on an NVIDIA GPU: the engine for robots.

Engines are built from the ONNX files on the machine that runs them and kept in a cache. Tensors are torch
CUDA tensors: state stays on the GPU, the image goes up through pinned memory, and of the results only what
the caller reads comes down. Outputs come from torch's allocator in the engine's own stream, so the state of
any number of camera streams is handed on without a copy.

The graphs WARPS are not built. TensorRT has read GridSample as nearest, and wrongly next to fp16, without a
word; PyTorch's grid_sample runs in the same stream instead, in fp32.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from copy import copy
from functools import partial
from typing import Any

from vss_ros.core.engines.tensor_rt_build import (
    LOGGER,
    Progress,
    check_version,
    is_out_of_memory,
    no_device,
    too_little_memory,
    trt,
)
from vss_ros.core.engines.tensor_rt_engines import EngineStore, Obtained
from vss_ros.core.engines.torch_device import (
    ONE_AT_A_TIME,
    CpuDevice,
    CudaDevice,
    Recording,
    TorchDeviceEngine,
    torch,
    warp,
)
from vss_ros.core.errors import EngineError, PrecisionError
from vss_ros.core.model.files import GraphSpec
from vss_ros.core.model.folder import ModelFolder
from vss_ros.core.model.steps import WARP_FLOWS, WARPS, flows_and_warped
from vss_ros.core.settings import EngineSettings

PRECISIONS = ('fp32', 'fp16', 'int8')  # those of which there can be ONNX files
DTYPES = {
    'float32': trt.DataType.FLOAT,
    'float16': trt.DataType.HALF,
    'int32': trt.DataType.INT32,
    'int64': trt.DataType.INT64,
    'uint8': trt.DataType.UINT8,
}
ALIGNMENT = 256  # bytes, of every address; PyTorch's allocator gives no other on a GPU
_log = logging.getLogger(__name__)


class TensorRtEngine(TorchDeviceEngine):
    """Runs the graphs of a model in TensorRT. Arrays are torch CUDA tensors."""

    name = 'tensorrt'

    def __init__(
        self, device: CpuDevice, runners: dict[str, GraphRunner | WarpRunner], facts: Mapping[str, str]
    ) -> None:
        super().__init__(device, {graph: list(runner.spec.inputs) for graph, runner in runners.items()})
        self._runners = runners  # these and no copy, so that `close` frees them all
        self._facts = dict(facts)
        self.notes: dict[str, str] = {}
        self.self_check: dict[str, Any] = {}  # the result for each graph
        self.is_kept = True  # in the cache, for the next start

    @classmethod
    def load(
        cls,
        model: ModelFolder,
        settings: EngineSettings,
        progress: Progress | None = None,
        check_again: bool = False,
    ) -> TensorRtEngine:
        """Takes the engines from the cache or builds them, and checks them against ONNX Runtime.

        Args:
            progress: takes one line now and then.
            check_again: check engines that have passed before, too.
        Raises:
            EngineError: no GPU, no engine and no leave to build one, or TensorRT cannot build, load or
                compute it; the message names the graph and says what to do.
        """
        version = check_version()
        if settings.precision not in PRECISIONS:
            raise PrecisionError(
                f'engine tensorrt has no precision {settings.precision}; use {", ".join(PRECISIONS)}'
            )
        graphs = model.graphs_in('int8_symmetric' if settings.precision == 'int8' else settings.precision)
        device = CudaDevice(settings.gpu_id)
        runners: dict[str, GraphRunner | WarpRunner] = {}
        engines: dict[str, Obtained] = {}
        with ExitStack() as undone:
            undone.callback(_free, device, runners)
            store = EngineStore(model, settings, device, progress or _log.info)
            with device.use():
                runtime = _runtime()
                for name, graph in graphs.items():
                    if name in WARPS:
                        runners[name] = WarpRunner(graph)
                    else:
                        make = partial(GraphRunner, graph, runtime, device, settings.cuda_graphs)
                        engines[name], runners[name] = _obtain(graph, store, make, settings.build)
            facts = {
                'version': version,
                'device': device.name,
                'precision': settings.precision,
                'threads': '1',
                'engine_cache': str(store.cache.folder),
                'cuda_graphs': 'on' if settings.cuda_graphs else 'off',
                # What TensorRT makes of fp32, also of what stays fp32 in files of lower precision.
                'tf32': 'on' if settings.precision == 'fp32' else 'on in what stays fp32',
                'warp': 'torch',
            }
            engine = cls(device, runners, facts)
            engine.self_check = store.check(engine, engines, again=check_again)
            undone.pop_all()
        engine.is_kept = all(obtained.cached for obtained in engines.values())
        return engine

    def _compute(self, graph: str, inputs: dict[str, Any]) -> dict[str, Any]:
        return self._runners[graph](inputs)

    def second(self) -> TensorRtEngine:
        second = copy(self)
        second._device = self._device.second()
        with second._device.use():
            second._runners = {name: runner.second(second._device) for name, runner in self._runners.items()}
        second._has_run = threading.local()
        second._is_second = True
        return second

    def describe(self) -> dict[str, str]:
        return {'engine': self.name, **self._facts, **self.notes}

    def close(self) -> None:
        _free(self._device, self._runners)


class CannotLoadError(EngineError):
    """TensorRT does not take an engine; another one may do."""


class WarpRunner:
    """One of the graphs WARPS in PyTorch: each of its tensors but the flow read where the flow points.

    The outputs are in the order of what is read.
    """

    def __init__(self, spec: GraphSpec) -> None:
        flows, features = flows_and_warped(spec.inputs)
        shapes = [spec.inputs[name] for name in features]
        if len(flows) != 1 or not features or shapes != list(spec.outputs.values()):
            raise EngineError(
                f'graph {spec.name!r} takes {", ".join(spec.inputs)} and gives {", ".join(spec.outputs)}; '
                f'expected {" or ".join(WARP_FLOWS)} and what it warps, as much of it and as large as what '
                'comes out. Give a graph that does something else another name'
            )
        self.spec = spec
        self._flow = flows[0]
        self._features = dict(zip(spec.outputs, features, strict=True))

    def second(self, device: CpuDevice) -> WarpRunner:
        return self

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        _check(self.spec, inputs)
        return {output: warp(inputs[name], inputs[self._flow]) for output, name in self._features.items()}


class GraphRunner:
    """One engine and its context. Belongs to one thread.

    Args:
        record: whether to record the launches as a CUDA graph.
        plan: the serialised engine; only one that this machine built.
    Raises:
        CannotLoadError: TensorRT does not take the plan.
        EngineError: the GPU's memory is used up, or the tensors are not those of the graph.
    """

    def __init__(self, spec: GraphSpec, runtime: Any, device: CpuDevice, record: bool, plan: bytes) -> None:
        self.spec = spec
        self._runtime, self._device = runtime, device  # they must outlive the engine
        self._record = record and device.kind == 'cuda'
        self._recording: Recording | None = None
        self._bound: dict[str, int] = {}
        LOGGER.take_reason()  # of something else
        with ONE_AT_A_TIME:
            self._engine = runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            reason = LOGGER.take_reason()
            if is_out_of_memory(reason):
                raise too_little_memory(f'load the engine of graph {spec.name!r}', reason)
            raise CannotLoadError(
                f'TensorRT {trt.__version__} cannot load the engine of graph {spec.name!r}: {reason}; '
                'it may be of another TensorRT or GPU'
            )
        self._check_tensors()
        self._context = self._new_context()

    def second(self, device: CpuDevice) -> GraphRunner:
        """The same engine for another thread, with a context of its own."""
        second = copy(self)
        second._device, second._bound, second._recording = device, {}, None
        second._context = self._new_context()
        return second

    def __call__(self, inputs: dict[str, Any]) -> dict[str, Any]:
        _check(self.spec, inputs)
        if not self._record:
            aligned = {name: self._aligned(tensor) for name, tensor in inputs.items()}
            return self._enqueued(self._new_outputs(), aligned)
        if self._recording is None:
            try:
                # Addresses must not change, nor memory be taken, while the launches are recorded.
                self._recording = Recording(partial(self._enqueued, self._new_outputs()), inputs)
            except (RuntimeError, EngineError) as error:
                raise EngineError(
                    f'graph {self.spec.name!r} cannot be recorded: {error}; set cuda_graphs to false, and '
                    'start a new process'
                ) from error
        return self._recording(inputs)

    def _new_outputs(self) -> dict[str, Any]:
        return {
            name: torch.empty(spec.shape, dtype=getattr(torch, spec.dtype), device=self._device.torch_device)
            for name, spec in self.spec.outputs.items()
        }

    def _aligned(self, tensor: Any) -> Any:
        """A copy of a tensor that is part of a larger one and begins where TensorRT takes none."""
        is_taken = self._device.kind == 'cpu' or tensor.data_ptr() % ALIGNMENT == 0
        return tensor if is_taken else tensor.clone()

    def _enqueued(self, outputs: dict[str, Any], inputs: dict[str, Any]) -> dict[str, Any]:
        for name, tensor in (*inputs.items(), *outputs.items()):
            address = tensor.data_ptr()
            if self._bound.get(name) != address:
                if not self._context.set_tensor_address(name, address):
                    raise self._failed(f'refuses the address of {name}')
                self._bound[name] = address
        if not self._context.execute_async_v3(self._device.stream_handle):
            raise self._failed('cannot be run')
        return outputs

    def _new_context(self) -> Any:
        with ONE_AT_A_TIME:
            context = self._engine.create_execution_context()
        if context is None:
            raise too_little_memory(f'run graph {self.spec.name!r}', LOGGER.take_reason())
        return context

    def _failed(self, what: str) -> EngineError:
        return EngineError(f'graph {self.spec.name!r} {what} in TensorRT: {LOGGER.take_reason()}')

    def _check_tensors(self) -> None:
        engine = self._engine
        found = {}
        for name in (engine.get_tensor_name(i) for i in range(engine.num_io_tensors)):
            is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            found[name] = (is_input, tuple(engine.get_tensor_shape(name)), engine.get_tensor_dtype(name))
        expected = {
            name: (is_input, spec.shape, DTYPES[spec.dtype])
            for is_input, specs in ((True, self.spec.inputs), (False, self.spec.outputs))
            for name, spec in specs.items()
        }
        if found != expected:
            names = [name for name in {**found, **expected} if found.get(name) != expected.get(name)]
            raise EngineError(
                f'the engine of graph {self.spec.name!r} has another {", ".join(names)} than model.yaml; '
                'export the model again'
            )


def _obtain(
    graph: GraphSpec, store: EngineStore, make: Callable[[bytes], GraphRunner], build: str
) -> tuple[Obtained, GraphRunner]:
    """The engine of a graph and what runs it; built once more if TensorRT does not take that of the cache.

    Args:
        make: makes the runner of an engine.
        build: of the settings.
    """
    obtained, plan = store.obtain(graph)
    try:
        return obtained, make(plan)
    except CannotLoadError as error:
        if build == 'never':
            raise EngineError(f'{error}. Build it with: {store.build_command()}') from error
        if obtained.is_fresh:
            raise
        _log.warning('%s; building it once more', error)
    obtained, plan = store.rebuild(graph)
    return obtained, make(plan)


def _free(device: CpuDevice, runners: dict[str, GraphRunner | WarpRunner]) -> None:
    device.settle()
    runners.clear()
    device.close()


def _runtime() -> Any:
    try:
        runtime = trt.Runtime(LOGGER)
    except TypeError as error:  # the bindings' way of saying that the library gave them nothing
        raise no_device() from error
    runtime.engine_host_code_allowed = False
    return runtime


def _check(spec: GraphSpec, inputs: Mapping[str, Any]) -> None:
    """TensorRT is given bare addresses: a tensor of another size would be read beyond its end."""
    for name, wanted in spec.inputs.items():
        tensor = inputs[name]
        dtype = str(tensor.dtype).removeprefix('torch.')
        if tuple(tensor.shape) != wanted.shape or dtype != wanted.dtype or not tensor.is_contiguous():
            strided = '' if tensor.is_contiguous() else ', not contiguous'
            raise EngineError(
                f'graph {spec.name!r} takes {name} as {wanted.dtype} {wanted.shape}, was given {dtype} '
                f'{tuple(tensor.shape)}{strided}'
            )
