"""Whether an engine on a GPU computes what ONNX Runtime does on the CPU: asked once, then remembered."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from vss_ros.core.engines import Engine, engine_class
from vss_ros.core.engines.remembered import Remembered
from vss_ros.core.engines.self_check import refuse_failed, self_check
from vss_ros.core.errors import VssError
from vss_ros.core.files.share import version
from vss_ros.core.model.folder import ModelFolder
from vss_ros.core.settings import EngineSettings

DRIVERS = '/proc/driver/nvidia/version', '/etc/nv_tegra_release'  # say which one runs; the latter on Jetson
_log = logging.getLogger(__name__)


def checked(
    engine: Engine, model: ModelFolder, settings: EngineSettings, what: str, facts: Sequence[Any]
) -> str:
    """Compares an engine with ONNX Runtime, unless one like it has passed here before; says what came of it.

    Args:
        what: computes, with its version and precision, in words.
        facts: what the outcome depends on beside model, settings and driver: the libraries, the GPU.
    Raises:
        EngineError: a graph is beyond tolerance, or cannot be run.
    """
    if not model.graphs:
        return 'not made: the model has no ONNX graphs'
    kept = Remembered(
        settings.engine_cache,
        f'{engine.name}-check',
        _all_facts(model, settings, facts),
        f'the self-check of engine {engine.name}',
    )
    if kept.read(_has_passed):
        return 'passed'
    try:
        reference = engine_class('onnxruntime').load(
            model, EngineSettings('onnxruntime', threads=settings.threads)
        )
    except VssError as error:
        _log.warning('engine %s is not compared with ONNX Runtime: %s', engine.name, error)
        return f'not made: {error}'
    _log.info('comparing engine %s with ONNX Runtime', engine.name)
    with closing(reference):
        results = self_check(model, engine, reference, settings.precision)
    refuse_failed(results, model, what)
    kept.write(results)
    return 'passed'


def driver_version() -> str:
    """The NVIDIA driver in its own words; nothing where it does not say."""
    for file in map(Path, DRIVERS):
        try:
            return file.read_text().splitlines()[0]
        except (OSError, IndexError):
            continue
    return ''


def _has_passed(results: Any) -> bool:
    return bool(results) and all(entry['passed'] is True for entry in results.values())


def _all_facts(model: ModelFolder, settings: EngineSettings, facts: Sequence[Any]) -> tuple[Any, ...]:
    return (
        model.weights_sha256,
        *(graph.sha256 for graph in model.graphs.values()),
        settings.precision,
        settings.cuda_graphs,
        version(),
        *facts,
        driver_version(),
    )
