"""ONNX Runtime on the CPU: the default engine where there is no GPU.

All graphs of a process share one thread pool. Separate pools spin against each other and make the same
graphs about 1.5 times slower on two cores.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from vss_ros.core.engines import take_inputs
from vss_ros.core.errors import EngineError, MissingLibraryError
from vss_ros.core.model_folder import GraphSpec, ModelFolder
from vss_ros.core.settings import EngineSettings

try:
    import onnxruntime
except ImportError as error:
    raise MissingLibraryError('onnxruntime', 'onnxruntime') from error

PROVIDER = 'CPUExecutionProvider'
PRECISIONS = ('fp32', 'int8')  # fp16 and bf16 are slower here than fp32
_log = logging.getLogger(__name__)
_pool_threads: int | None = None  # the pool is made once per process and cannot be changed


class OnnxRuntimeEngine:
    """Runs ONNX graphs in fp32 on the CPU. Arrays are numpy arrays."""

    name = 'onnxruntime'

    def __init__(
        self, sessions: dict[str, onnxruntime.InferenceSession], threads: int, precision: str = 'fp32'
    ) -> None:
        self._sessions = sessions
        self._threads = threads
        self._precision = precision
        self.notes: dict[str, str] = {}
        self._inputs = {
            graph: [entry.name for entry in session.get_inputs()] for graph, session in sessions.items()
        }
        self._outputs = {
            graph: [entry.name for entry in session.get_outputs()] for graph, session in sessions.items()
        }

    @classmethod
    def load(cls, model: ModelFolder, settings: EngineSettings) -> OnnxRuntimeEngine:
        if settings.precision not in PRECISIONS:
            raise EngineError(
                f'engine onnxruntime runs fp32 and int8 on the CPU, precision is {settings.precision}; '
                'set precision to fp32'
            )
        return cls.of_graphs(model.graphs_in(settings.precision), settings, settings.precision)

    @classmethod
    def of_graphs(
        cls, graphs: Mapping[str, GraphSpec], settings: EngineSettings, precision: str
    ) -> OnnxRuntimeEngine:
        """An engine for graphs as they are, whatever their precision."""
        threads = _shared_pool(settings.threads or (os.cpu_count() or 1))
        return cls({name: _session(graph) for name, graph in graphs.items()}, threads, precision)

    def run(self, graph: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
        feeds = take_inputs(graph, self._inputs, tensors)
        names = self._outputs[graph]
        try:
            return dict(zip(names, self._sessions[graph].run(names, feeds), strict=True))
        except Exception as error:  # ONNX Runtime's own exceptions share no base class
            raise EngineError(f'graph {graph!r} failed in ONNX Runtime: {error}') from error

    def to_host(self, tensor: Any) -> np.ndarray:
        return tensor

    def describe(self) -> dict[str, str]:
        return {
            'engine': self.name,
            'version': onnxruntime.__version__,
            'device': 'cpu',
            'precision': self._precision,
            'threads': str(self._threads),
            **self.notes,
        }

    def close(self) -> None:
        self._sessions.clear()


def _shared_pool(threads: int) -> int:
    """Makes the process-wide pool on first use and returns its size."""
    global _pool_threads
    if _pool_threads is None:
        onnxruntime.set_global_thread_pool_sizes(threads, 1)
        _pool_threads = threads
    elif _pool_threads != threads:
        _log.warning(
            'ONNX Runtime keeps its pool of %d threads; %d take effect in a new process',
            _pool_threads,
            threads,
        )
    return _pool_threads


def _session(graph: GraphSpec) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.use_per_session_threads = False
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(graph.file), options, providers=[PROVIDER])
    except Exception as error:  # ONNX Runtime's own exceptions share no base class
        raise EngineError(f'ONNX Runtime refuses {graph.file}: {error}') from error
    for what, found, expected in (
        ('inputs', session.get_inputs(), graph.inputs),
        ('outputs', session.get_outputs(), graph.outputs),
    ):
        if {entry.name: tuple(entry.shape) for entry in found} != {
            name: spec.shape for name, spec in expected.items()
        }:
            raise EngineError(f'{graph.file}: its {what} are not those of model.yaml; export it again')
    return session
