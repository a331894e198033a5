"""OpenVINO on the CPU: an optional engine, worth it on x86 processors with AMX or VNNI.

The precision is always said explicitly. Left to itself OpenVINO computes in bf16 where the processor has
it, without a word, and 5 of 1000 pixels change.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from vss_ros.core.engines.interface import Interface, check_interface, take_inputs
from vss_ros.core.engines.openvino_cache import cache_folder
from vss_ros.core.errors import EngineError, MissingLibraryError, PrecisionError
from vss_ros.core.model.files import GraphSpec
from vss_ros.core.model.folder import ModelFolder
from vss_ros.core.processor import usable_cores
from vss_ros.core.settings import EngineSettings

# Importing OpenVINO reports to Google Analytics, from a child of this process, if this module is there.
_TELEMETRY = 'openvino_telemetry'
_hides_telemetry = _TELEMETRY not in sys.modules
if _hides_telemetry:
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # it takes a stub instead
try:
    import openvino
except ModuleNotFoundError as error:
    raise MissingLibraryError('openvino', 'openvino') from error
except (ImportError, OSError) as error:  # it is there, a native library that it needs is not
    raise EngineError(f'OpenVINO cannot be loaded: {error}') from error
finally:
    if _hides_telemetry:
        del sys.modules[_TELEMETRY]

DEVICE = 'CPU'
# precision: what OpenVINO calls it, and what the processor must offer for it to be more than a name
HINTS = {'fp32': ('f32', 'FP32'), 'bf16': ('bf16', 'BF16'), 'int8': ('f32', 'INT8')}


class OpenVinoEngine:
    """Runs ONNX graphs on the CPU. Arrays are numpy arrays."""

    name = 'openvino'

    def __init__(
        self, compiled: Mapping[str, Any], graphs: Mapping[str, GraphSpec], facts: Mapping[str, str]
    ) -> None:
        self._requests = {graph: model.create_infer_request() for graph, model in compiled.items()}
        self._inputs = {graph: _names(m.inputs, graphs[graph].inputs) for graph, m in compiled.items()}
        self._outputs = {graph: _names(m.outputs, graphs[graph].outputs) for graph, m in compiled.items()}
        self._facts = dict(facts)
        self.notes: dict[str, str] = {}
        self._load_again: Callable[[], OpenVinoEngine] | None = None

    @classmethod
    def load(cls, model: ModelFolder, settings: EngineSettings) -> OpenVinoEngine:
        """Compiles the graphs, or takes them from OpenVINO's own cache in the engine cache.

        Raises:
            EngineError: the processor has no such arithmetic, or OpenVINO refuses a graph.
        """
        core = openvino.Core()
        hint = _hint(core, settings.precision)
        options: dict[str, Any] = {
            'INFERENCE_PRECISION_HINT': hint,
            'PERFORMANCE_HINT': 'LATENCY',
            'INFERENCE_NUM_THREADS': settings.threads or usable_cores(),
        }
        files = 'int8_symmetric' if settings.precision == 'int8' else 'fp32'
        graphs = model.graphs_in(files)
        with cache_folder(settings.engine_cache, model, openvino.__version__) as folder:
            if folder is not None:
                options['CACHE_DIR'] = str(folder)
            compiled = {name: _compile(core, graph, options) for name, graph in graphs.items()}
        for name in compiled:
            used = compiled[name].get_property('INFERENCE_PRECISION_HINT').to_string()
            if used != hint:
                raise EngineError(
                    f'OpenVINO would run graph {name!r} in {used} instead of {hint}; use another precision'
                )
        any_graph = next(iter(compiled.values()))
        facts = {
            'version': openvino.__version__,
            'device': str(core.get_property(DEVICE, 'FULL_DEVICE_NAME')),
            'precision': settings.precision,
            'threads': str(any_graph.get_property('INFERENCE_NUM_THREADS')),
        }
        engine = cls(compiled, graphs, facts)
        engine._load_again = partial(cls.load, model, settings)
        return engine

    def run(self, graph: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
        feeds = take_inputs(graph, self._inputs, tensors)
        arrays = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
        try:
            results = self._requests[graph].infer(arrays, share_inputs=True, share_outputs=False)
        except RuntimeError as error:
            raise EngineError(f'graph {graph!r} failed in OpenVINO: {_first_line(error)}') from error
        # Copies, because the request writes its next results to the same memory.
        return dict(zip(self._outputs[graph], (results[i] for i in range(len(results))), strict=True))

    def to_host(self, tensor: Any) -> np.ndarray:
        return tensor

    def second(self) -> OpenVinoEngine:
        # Compiled for latency, a graph is run by one request at a time and the others wait.
        assert self._load_again is not None
        return self._load_again()

    def describe(self) -> dict[str, str]:
        return {'engine': self.name, **self._facts, **self.notes}

    def close(self) -> None:
        self._requests.clear()


def _compile(core: Any, graph: GraphSpec, options: Mapping[str, Any]) -> Any:
    data = graph.read()
    try:
        # Not the file: OpenVINO's cache knows one by its name, size and time, and a model that is put in the
        # place of another may have the same.
        compiled = core.compile_model(core.read_model(data), DEVICE, options)
    except RuntimeError as error:
        raise EngineError(f'OpenVINO refuses {graph.file}: {_first_line(error)}') from error
    inputs, outputs = _interface(compiled.inputs, graph.inputs), _interface(compiled.outputs, graph.outputs)
    check_interface(graph, inputs, outputs)
    return compiled


def _names(ports: Sequence[Any], wanted: Collection[str]) -> list[str]:
    """The names of ports: one that hands a tensor through has those of its input and of its output."""
    return [next((name for name in port.names if name in wanted), port.any_name) for port in ports]


def _interface(ports: Sequence[Any], wanted: Collection[str]) -> Interface:
    found = zip(_names(ports, wanted), ports, strict=True)
    return {name: (port.element_type.to_dtype().name, tuple(port.shape)) for name, port in found}


def _hint(core: Any, precision: str) -> str:
    """OpenVINO's name of a precision.

    Raises:
        PrecisionError: this processor does not compute in it.
    """
    if precision not in HINTS:
        raise PrecisionError(f'engine openvino has no precision {precision}; use one of {", ".join(HINTS)}')
    hint, capability = HINTS[precision]
    capabilities = core.get_property(DEVICE, 'OPTIMIZATION_CAPABILITIES')
    if capability not in capabilities:
        raise PrecisionError(
            f'this processor has no {precision} arithmetic (OpenVINO sees {", ".join(capabilities)}); '
            'set precision to fp32'
        )
    return hint


def _first_line(error: Exception) -> str:
    """OpenVINO's messages go on with where in its sources it failed."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if not line.startswith(('Exception from', 'Check '))), str(error))
