"""Engines run the graphs of a model. One file per runtime, one protocol for all.

`engine: auto` walks an explicit list and takes the first that works here; what was chosen and why is kept
in `describe()`, logged once and published. An engine that was asked for by name is used or refused, never
replaced in silence. The list: TensorRT and PyTorch on an NVIDIA GPU, OpenVINO where a measured trial showed
it faster on this processor, ONNX Runtime.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from vss_ros.core.errors import EngineError, VssError, torch_needed
from vss_ros.core.model.folder import ModelFolder
from vss_ros.core.settings import EngineSettings

Tensors = dict[str, Any]  # name -> an array of the engine's own kind; may live on a GPU

# The torch engine builds the networks themselves, so it has a folder of its own.
ENGINE_CLASSES = {
    'tensorrt': 'vss_ros.core.engines.tensor_rt:TensorRtEngine',
    'torch': 'vss_ros.torch_engine.engine:TorchEngine',
    'openvino': 'vss_ros.core.engines.openvino:OpenVinoEngine',
    'onnxruntime': 'vss_ros.core.engines.onnx_runtime:OnnxRuntimeEngine',
}
AUTO_ORDER = ('tensorrt', 'torch', 'openvino', 'onnxruntime')
GPU_ENGINES = ('tensorrt', 'torch')  # of which `auto` makes use on a GPU only
# One of these is there wherever an NVIDIA driver is: desktop and server, Jetson, WSL.
NVIDIA_DEVICES = ('/dev/nvidiactl', '/dev/nvmap', '/dev/nvhost-ctrl', '/dev/dxg')
ON_BOTH = ('fp32', 'int8')  # what both CPU engines run, so that a trial can decide
_log = logging.getLogger(__name__)


class Engine(Protocol):
    """Runs the graphs of one model. Make one per model; any number of streams may share it.

    Attributes:
        notes: what `describe` tells beside what the engine knows itself, such as why it was chosen.
    """

    name: str
    notes: dict[str, str]

    def run(self, graph: str, tensors: Mapping[str, Any]) -> Tensors:
        """Runs one graph on the tensors it names and returns its outputs by name.

        numpy arrays and the engine's own arrays are both taken; what comes back is the engine's own.
        Inputs that had to be moved to a device may come back too, so that the next graph finds them there.

        Raises:
            EngineError: the model has no such graph, or a tensor the graph takes is not there.
        """
        ...

    def to_host(self, tensor: Any) -> np.ndarray:
        """A tensor as a numpy array."""
        ...

    def second(self) -> Engine:
        """The same graphs for a second thread, to run while this engine runs. It ends with this engine.

        Whatever it gives may be handed to this engine; not the other way round.

        Raises:
            EngineError: this engine is for one thread only.
        """
        ...

    def describe(self) -> dict[str, str]:
        """Runtime, version, device, precision and whatever else a bug report needs."""
        ...

    def close(self) -> None:
        """Frees what the engine holds. The engine is not used afterwards."""
        ...


class EngineClass(Protocol):
    """Makes engines of one runtime."""

    def load(self, model: ModelFolder, settings: EngineSettings) -> Engine:
        """Makes every graph of `model` ready to run.

        Raises:
            MissingLibraryError: the runtime is not installed.
            EngineError: the runtime cannot run this model as asked for on this machine.
            ModelError: a file of the model is damaged, or it has none of this precision.
            SettingsError: the engines that it builds cannot be kept, because the user has no home.
        """
        ...


@runtime_checkable
class DeviceEngine(Protocol):
    """An engine with a device of its own, which may work on after `run` has returned.

    To measure it one waits for the device; and it is warmed up in each thread that is to use it.
    """

    def upload(self, graph: str, tensors: Mapping[str, Any]) -> Tensors:
        """Those tensors of a graph that are not on the device yet, copied there."""
        ...

    def synchronise(self) -> None:
        """Waits until the device has done all that was asked of it."""
        ...


def load_engine(model: ModelFolder, settings: EngineSettings) -> Engine:
    """Loads the engine that the settings name, or for `auto` the first of AUTO_ORDER that works.

    Raises:
        EngineError: with `auto` none works; the message says why for each that was tried.
        EngineError, MissingLibraryError, ModelError, SettingsError: the one that is named does not, see
            `EngineClass.load`.
    """
    engine = _load(model, settings)
    if settings.cuda_graphs and 'cuda_graphs' not in engine.describe():
        engine.notes['cuda_graphs'] = f'off: engine {engine.name} does not record launches'
    return engine


def _load(model: ModelFolder, settings: EngineSettings) -> Engine:
    if settings.engine != 'auto':
        return engine_class(settings.engine).load(model, settings)
    refusals = []
    for name in AUTO_ORDER:
        try:
            chosen_for = _why_auto_takes(name, model, settings)
            engine = engine_class(name).load(model, settings)
        except (VssError, OSError) as error:  # a disk that is full or cannot be written, say
            refusals.append(f'{name}: {error}')
            continue
        engine.notes['chosen'] = '; '.join([f'auto took {name} ({chosen_for})', *refusals])
        _log.info('%s', engine.notes['chosen'])
        return engine
    raise EngineError('no engine can run this model here; ' + '; '.join(refusals))


def _why_auto_takes(name: str, model: ModelFolder, settings: EngineSettings) -> str:
    """The reason to try an engine.

    Raises:
        EngineError, MissingLibraryError: the reason not to.
    """
    if name in GPU_ENGINES:
        # Looked at first, because it takes seconds to load PyTorch only to hear that there is no GPU.
        if sys.platform == 'linux' and not any(Path(device).exists() for device in NVIDIA_DEVICES):
            raise EngineError('this machine has no NVIDIA driver')
        if name == 'torch':
            engine_class('torch')
            from vss_ros.core.engines.torch_device import why_no_cuda

            if why_not := why_no_cuda(settings.gpu_id):
                raise EngineError(why_not)
        return 'there is an NVIDIA GPU'
    if name == 'openvino':
        engine_class('openvino')
        if settings.precision not in ON_BOTH:
            return f'it has precision {settings.precision}'
        from vss_ros.core.engines.cpu_trial import trial

        result = trial(model, settings)
        times = ', '.join(f'{other} {ms} ms' for other, ms in result['milliseconds'].items())
        if result['winner'] != 'openvino':
            raise EngineError(f'not faster in the trial on this processor: {times}')
        return f'faster in the trial on this processor: {times}'
    return 'it runs everywhere'


def engine_class(name: str) -> EngineClass:
    """The class of an engine of ENGINE_CLASSES.

    Raises:
        MissingLibraryError: its runtime is not installed.
        EngineError: its runtime cannot be loaded.
    """
    module, _, attribute = ENGINE_CLASSES[name].partition(':')
    try:
        with torch_needed():  # by the engine `torch`; others name their runtime themselves
            return getattr(importlib.import_module(module), attribute)
    except (ImportError, OSError) as error:  # as for the other runtimes in their own files
        raise EngineError(f'PyTorch cannot be loaded: {error}') from error
