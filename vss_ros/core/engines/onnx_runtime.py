"""ONNX Runtime: the default engine where there is no GPU, and a second way to one.

Each graph has its threads, which wait busily for each other within a run and sleep as soon as it ends: the
cores are there for what comes between two graphs, and for the robot's other nodes. With `spinning` all graphs
of the process share one pool, which ONNX Runtime lets spin on for some 30 ms. Where two graphs run at once on
few cores, as with key frames in the background, that is the steadier way.

With `provider` cuda or tensorrt the graphs run on an NVIDIA GPU, for those who have no PyTorch there. The
engines `torch` and `tensorrt` do more: pinned uploads, recorded launches.
"""

from __future__ import annotations

import importlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np

from vss_ros.core.engines.engine_cache import EngineCache
from vss_ros.core.engines.gpu_check import checked
from vss_ros.core.engines.interface import Interface, check_interface, take_inputs
from vss_ros.core.engines.onnx_providers import (
    PROVIDERS,
    Provider,
    check_available,
    check_precision,
    check_used,
    gpu_name,
    installed_package,
)
from vss_ros.core.engines.openvino_cache import guarded
from vss_ros.core.errors import EngineError, MissingLibraryError
from vss_ros.core.model.files import GraphSpec
from vss_ros.core.model.folder import ModelFolder
from vss_ros.core.model.steps import WARPS
from vss_ros.core.processor import usable_cores
from vss_ros.core.settings import EngineSettings

try:
    import onnxruntime
except ModuleNotFoundError as error:
    raise MissingLibraryError('onnxruntime', 'onnxruntime') from error
except (ImportError, OSError) as error:  # it is there, a native library that it needs is not
    raise EngineError(f'ONNX Runtime cannot be loaded: {error}') from error

TENSORRT_FILES = ('*.engine', '*.profile', '*.timing')  # what TensorRT keeps in a folder of the cache
_log = logging.getLogger(__name__)
_pool_threads: int | None = None  # of the shared pool, which is made once per process and stays


class OnnxRuntimeEngine:
    """Runs ONNX graphs. Arrays are numpy arrays, or ONNX Runtime's own where a device holds them.

    Args:
        device: where tensors stay between graphs, such as `('cuda', 0)`; None passes numpy arrays.
    """

    name = 'onnxruntime'

    def __init__(
        self,
        sessions: dict[str, onnxruntime.InferenceSession],
        facts: Mapping[str, str],
        device: tuple[str, int] | None = None,
    ) -> None:
        self._sessions = sessions
        self._facts = dict(facts)
        self._device = device
        self.notes: dict[str, str] = {}
        self._inputs = {
            graph: [entry.name for entry in session.get_inputs()] for graph, session in sessions.items()
        }
        self._outputs = {
            graph: [entry.name for entry in session.get_outputs()] for graph, session in sessions.items()
        }

    @classmethod
    def load(cls, model: ModelFolder, settings: EngineSettings) -> OnnxRuntimeEngine:
        provider = PROVIDERS[settings.provider]
        check_precision(provider, settings.precision)
        check_available(provider, onnxruntime.get_available_providers())
        graphs = model.graphs_in(provider.file_precision(settings.precision))
        engine = cls.of_graphs(graphs, settings, settings.precision)
        if not provider.is_gpu:
            return engine
        what = f'ONNX Runtime {onnxruntime.__version__} with {provider.title} ({settings.precision})'
        facts = [provider.setting, installed_package(), gpu_name(), settings.gpu_id]
        facts += [graph.sha256 for graph in graphs.values()]
        try:
            engine.notes['self_check'] = checked(engine, model, settings, what, facts)
        except BaseException:
            engine.close()
            raise
        return engine

    @classmethod
    def of_graphs(
        cls, graphs: Mapping[str, GraphSpec], settings: EngineSettings, precision: str
    ) -> OnnxRuntimeEngine:
        """An engine for graphs as they are, whatever their precision."""
        threads = settings.threads or usable_cores()
        if settings.spinning or _pool_threads is not None:
            threads = _shared_pool(threads)
        provider = PROVIDERS[settings.provider]
        if provider.is_gpu:
            onnxruntime.preload_dlls()  # of CUDA and cuDNN; those that pip installs are found by nobody else
        if provider.setting == 'tensorrt':
            with suppress(ImportError, OSError):  # it may be installed without Python, and found
                importlib.import_module('tensorrt')  # loads its libraries, which lie where pip puts them, too
        sessions = {
            name: _session(graph, provider, settings, precision, threads) for name, graph in graphs.items()
        }
        facts = {
            'version': onnxruntime.__version__,
            'device': f'cuda:{settings.gpu_id}' if provider.is_gpu else 'cpu',
            'provider': provider.title,
            'precision': precision,
            'threads': str(threads),
            'spinning': 'off' if _pool_threads is None else 'on',
        }
        if provider.is_gpu:
            nodes = sum((nodes_by_provider(session) for session in sessions.values()), Counter())
            facts['nodes'] = ', '.join(f'{name} {count}' for name, count in nodes.most_common())
            # What these providers make of fp32, also of what stays fp32 in files of lower precision.
            facts['tf32'] = 'on' if precision == 'fp32' else 'on in what stays fp32'
        return cls(sessions, facts, ('cuda', settings.gpu_id) if provider.is_gpu else None)

    def run(self, graph: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
        feeds = take_inputs(graph, self._inputs, tensors)
        names = self._outputs[graph]
        try:
            if self._device is not None:
                return self._run_on_device(graph, feeds, self._device)
            return dict(zip(names, self._sessions[graph].run(names, feeds), strict=True))
        except Exception as error:  # ONNX Runtime's own exceptions share no base class
            raise EngineError(f'graph {graph!r} failed in ONNX Runtime: {error}') from error

    def to_host(self, tensor: Any) -> np.ndarray:
        return tensor.numpy() if isinstance(tensor, onnxruntime.OrtValue) else tensor

    def second(self) -> OnnxRuntimeEngine:
        return self  # sessions may be run by any number of threads

    def describe(self) -> dict[str, str]:
        return {'engine': self.name, **self._facts, **self.notes}

    def close(self) -> None:
        self._sessions.clear()

    def _run_on_device(
        self, graph: str, feeds: Mapping[str, Any], device: tuple[str, int]
    ) -> dict[str, onnxruntime.OrtValue]:
        """Runs a graph between tensors that stay on the device; gives what it uploaded, too."""
        # A new binding each time: one that is used again writes its next results over the last ones.
        binding = self._sessions[graph].io_binding()
        uploaded = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), *device)
            for name, array in feeds.items()
            if not isinstance(array, onnxruntime.OrtValue)
        }
        for name, value in {**feeds, **uploaded}.items():
            binding.bind_ortvalue_input(name, value)
        for name in self._outputs[graph]:
            binding.bind_output(name, *device)
        self._sessions[graph].run_with_iobinding(binding)
        return uploaded | dict(zip(self._outputs[graph], binding.get_outputs(), strict=True))


def nodes_by_provider(session: onnxruntime.InferenceSession) -> Counter[str]:
    """How many nodes each provider was given; older versions only say which provider comes first."""
    found: Counter[str] = Counter()
    with suppress(Exception):  # not recorded, or not known to this version
        for part in session.get_provider_graph_assignment_info():
            found[part.ep_name] += len(part.get_nodes())
    return found or Counter(session.get_providers()[:1])


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Options of a session with so many threads of its own; with the shared pool once there is one.

    From then on ONNX Runtime refuses sessions with threads of their own.
    """
    options = onnxruntime.SessionOptions()
    if _pool_threads is not None:
        options.use_per_session_threads = False
        return options
    options.intra_op_num_threads = threads
    options.add_session_config_entry('session.force_spinning_stop', '1')  # of no effect on a shared pool
    return options


def _shared_pool(threads: int) -> int:
    """Makes the process-wide pool on first use and returns its size."""
    global _pool_threads
    if _pool_threads is None:
        if not hasattr(onnxruntime, 'set_global_thread_pool_sizes'):
            raise EngineError(f'ONNX Runtime {onnxruntime.__version__} is too old; use 1.23 or newer')
        onnxruntime.set_global_thread_pool_sizes(threads, 1)
        _pool_threads = threads
    elif _pool_threads != threads:
        _log.warning(
            'ONNX Runtime keeps its pool of %d threads; %d take effect in a new process',
            _pool_threads,
            threads,
        )
    return _pool_threads


def _session(
    graph: GraphSpec, wanted: Provider, settings: EngineSettings, precision: str, threads: int
) -> onnxruntime.InferenceSession:
    provider = PROVIDERS['cuda'] if wanted.setting == 'tensorrt' and graph.name in WARPS else wanted
    options = session_options(threads)
    options.log_severity_level = 3
    if provider.is_gpu:
        options.add_session_config_entry('session.disable_cpu_ep_fallback', '1')
        options.add_session_config_entry('session.record_ep_graph_assignment_info', '1')
    data = graph.read()
    with _cache(graph, settings) if provider.setting == 'tensorrt' else nullcontext() as cache:
        providers = provider.options(settings.gpu_id, precision, cache)
        try:
            # Without `enable_fallback` it tries others when it fails, and tells why these failed.
            session = onnxruntime.InferenceSession(data, options, providers=providers, enable_fallback=0)
        except Exception as error:  # ONNX Runtime's own exceptions share no base class
            where = f' with {provider.title}' if provider.is_gpu else ''
            raise EngineError(f'ONNX Runtime refuses {graph.file}{where}: {error}') from error
    check_used(provider, list(nodes_by_provider(session)), graph.file)
    check_interface(graph, _interface(session.get_inputs()), _interface(session.get_outputs()))
    return session


def _interface(entries: Sequence[Any]) -> Interface:
    names = {'float': 'float32', 'double': 'float64'}  # ONNX Runtime's -> numpy's, where they differ
    found = {}
    for entry in entries:
        kind = entry.type.removeprefix('tensor(').removesuffix(')')
        found[entry.name] = names.get(kind, kind), tuple(entry.shape)
    return found


@contextmanager
def _cache(graph: GraphSpec, settings: EngineSettings) -> Iterator[Path]:
    """Where TensorRT may keep its engines of one file while a session is made; what is damaged is not there.

    Raises:
        EngineError: they cannot be kept.
    """
    folder = EngineCache(settings.engine_cache).folder / 'onnxruntime'
    folder /= f'{graph.sha256[:16]}-{onnxruntime.__version__}-{gpu_name()}-{settings.gpu_id}'
    guard = guarded(folder, TENSORRT_FILES, lambda: _log.info('another process is at %s; waiting', folder))
    with ExitStack() as stack:
        try:
            stack.enter_context(guard)
        except OSError as error:
            raise EngineError(
                f'the engine cache {folder} cannot be used: {error}; '
                'set engine_cache to a folder that can be written'
            ) from error
        yield folder
