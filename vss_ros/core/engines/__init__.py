"""Engines run the graphs of a model. One file per runtime, one protocol for all.

`engine: auto` walks an explicit list and takes the first that works here; what was chosen and why is kept
in `describe()`, logged once and published. An engine that was asked for by name is used or refused, never
replaced in silence.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from vss_ros.core.errors import EngineError, MissingLibraryError
from vss_ros.core.model_folder import ModelFolder
from vss_ros.core.settings import EngineSettings

Tensors = dict[str, Any]  # name -> an array of the engine's own kind; may live on a GPU

# The torch engine builds the networks themselves, so it lives with them in `methods`.
ENGINE_CLASSES = {
    'onnxruntime': 'vss_ros.core.engines.onnx_runtime:OnnxRuntimeEngine',
    'torch': 'vss_ros.methods.torch_engine:TorchEngine',
}
AUTO_ORDER = ('onnxruntime',)


class Engine(Protocol):
    """Runs the graphs of one model. Make one per model; any number of streams may share it."""

    name: str

    @classmethod
    def load(cls, model: ModelFolder, settings: EngineSettings) -> Engine:
        """Makes every graph of `model` ready to run.

        Raises:
            MissingLibraryError: the runtime is not installed.
            EngineError: the runtime cannot run this model as asked for on this machine.
        """
        ...

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

    def describe(self) -> dict[str, str]:
        """Runtime, version, device, precision and whatever else a bug report needs."""
        ...

    def close(self) -> None:
        """Frees what the engine holds. The engine is not used afterwards."""
        ...


def load_engine(model: ModelFolder, settings: EngineSettings) -> Engine:
    """Loads the engine that the settings name, or for `auto` the first of AUTO_ORDER that works.

    Raises:
        EngineError, MissingLibraryError: none works; the message says why for each that was tried.
    """
    if settings.engine != 'auto':
        return engine_class(settings.engine).load(model, settings)
    refusals = []
    for name in AUTO_ORDER:
        try:
            return engine_class(name).load(model, settings)
        except (EngineError, MissingLibraryError) as error:
            refusals.append(f'{name}: {error}')
    raise EngineError('no engine can run this model here; ' + '; '.join(refusals))


def take_inputs(
    graph: str, graphs: Mapping[str, Sequence[str]], tensors: Mapping[str, Any]
) -> dict[str, Any]:
    """The tensors that `graph` takes, out of all the tensors of a step.

    Args:
        graphs: names of the inputs of every graph of the model.
    Raises:
        EngineError: the model has no such graph, or a tensor the graph takes is not there.
    """
    if graph not in graphs:
        raise EngineError(f'the model has no graph {graph!r}; it has {", ".join(graphs)}')
    missing = [name for name in graphs[graph] if name not in tensors]
    if missing:
        raise EngineError(
            f'graph {graph!r} needs {", ".join(missing)}; the step has {", ".join(tensors)}. '
            'A stream begins with a key step'
        )
    return {name: tensors[name] for name in graphs[graph]}


def engine_class(name: str) -> type[Engine]:
    """The class of an engine of ENGINE_CLASSES.

    Raises:
        MissingLibraryError: its runtime is not installed.
    """
    module, _, attribute = ENGINE_CLASSES[name].partition(':')
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name != 'torch':
            raise
        raise MissingLibraryError('torch', 'train') from error
