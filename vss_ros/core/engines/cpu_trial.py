"""Which of two CPU engines is faster here: measured once per model and machine, and remembered."""

from __future__ import annotations

import importlib
import logging
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np

from vss_ros.core.engines import Engine, engine_class
from vss_ros.core.engines.remembered import Remembered
from vss_ros.core.model.folder import ModelFolder
from vss_ros.core.model.walk import walk
from vss_ros.core.processor import processor_name, usable_cores
from vss_ros.core.settings import EngineSettings

CONTENDERS = ('onnxruntime', 'openvino')
ROUNDS = 7  # the engines take turns, so that whatever else the machine does meets both
MARGIN = 0.9  # OpenVINO must need less than this share of ONNX Runtime's time
_log = logging.getLogger(__name__)


def trial(model: ModelFolder, settings: EngineSettings) -> dict[str, Any]:
    """The result of the trial, from the cache if it was made before: `winner` and `milliseconds`.

    Raises:
        EngineError, MissingLibraryError: one of the engines cannot run the model.
    """
    for name in CONTENDERS:
        engine_class(name)  # says so where one is not installed
    kept = Remembered(settings.engine_cache, 'cpu-trial', _facts(model, settings), 'the trial of engines')
    known = kept.read(_understood)
    if known is not None:
        return known
    result = _measure(model, settings)
    times = ', '.join(f'{name} {ms} ms' for name, ms in result['milliseconds'].items())
    _log.info('trial of CPU engines for model %s: %s; taking %s', model.name, times, result['winner'])
    kept.write(result)
    return result


def _understood(known: Any) -> dict[str, Any]:
    if known['winner'] not in CONTENDERS or set(known['milliseconds']) != set(CONTENDERS):
        raise ValueError('the result is of other engines')
    return {'winner': known['winner'], 'milliseconds': dict(known['milliseconds'])}


def _measure(model: ModelFolder, settings: EngineSettings) -> dict[str, Any]:
    times: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    with ExitStack() as opened:
        engines: dict[str, Engine] = {}
        for name in CONTENDERS:
            engines[name] = engine_class(name).load(model, replace(settings, engine=name))
            opened.callback(engines[name].close)
        for turn in range(ROUNDS + 2):
            for name, engine in engines.items():
                seconds = _seconds_of_all_steps(model, engine)
                if turn >= 2:  # the first runs prepare
                    times[name].append(seconds)
    # The least, because all else that the machine does only adds to it.
    least = {name: round(min(values) * 1e3, 3) for name, values in times.items()}
    is_faster = least['openvino'] < MARGIN * least['onnxruntime']
    return {'winner': 'openvino' if is_faster else 'onnxruntime', 'milliseconds': least}


def _seconds_of_all_steps(model: ModelFolder, engine: Engine) -> float:
    """What the graphs of one step of each kind take; what is in the image does not matter."""
    seconds = 0.0

    def run(graph: str, tensors: dict[str, Any]) -> Any:
        nonlocal seconds
        start = time.perf_counter()
        outputs = engine.run(graph, tensors)
        seconds += time.perf_counter() - start
        return outputs

    grey = np.full((*model.image_size, 3), 127, np.uint8)
    for _ in walk(model, [grey] * len(model.steps), run):
        pass
    return seconds


def _facts(model: ModelFolder, settings: EngineSettings) -> tuple[Any, ...]:
    """What the outcome depends on: the graphs, the precision, the processor, its threads, the versions."""
    precisions = ('int8', 'int8_symmetric') if settings.precision == 'int8' else ('fp32',)
    return (
        *(graph.sha256 for files in precisions for graph in model.graphs_in(files).values()),
        settings.precision,
        settings.threads or usable_cores(),
        settings.spinning,
        processor_name(),
        # Of the modules: ONNX Runtime may have come in a package of another name.
        *(importlib.import_module(name).__version__ for name in CONTENDERS),
    )
