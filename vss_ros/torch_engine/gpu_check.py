"""Whether PyTorch on a GPU computes what ONNX Runtime does: asked once, then remembered."""

from __future__ import annotations

import logging
from typing import Any

import torch

from vss_ros.core.engines import Engine, engine_class
from vss_ros.core.engines.remembered import Remembered
from vss_ros.core.engines.self_check import refuse_failed, self_check
from vss_ros.core.engines.torch_device import CpuDevice, driver_version
from vss_ros.core.errors import VssError
from vss_ros.core.files.share import version
from vss_ros.core.model.folder import ModelFolder
from vss_ros.core.settings import EngineSettings

_log = logging.getLogger(__name__)


def checked(engine: Engine, model: ModelFolder, settings: EngineSettings, device: CpuDevice) -> str:
    """Compares an engine with ONNX Runtime, unless one like it has passed here before; says what came of it.

    Raises:
        EngineError: a graph is beyond tolerance, or cannot be run.
    """
    if not model.graphs:
        return 'not made: the model has no ONNX graphs'
    kept = Remembered(
        settings.engine_cache,
        'torch-check',
        _facts(model, settings, device),
        'the self-check of engine torch',
    )
    if kept.read(_has_passed):
        return 'passed'
    try:
        reference = engine_class('onnxruntime').load(
            model, EngineSettings('onnxruntime', threads=settings.threads)
        )
    except VssError as error:
        _log.warning('engine torch is not compared with ONNX Runtime: %s', error)
        return f'not made: {error}'
    _log.info('comparing engine torch with ONNX Runtime')
    results = self_check(model, engine, reference, settings.precision)
    reference.close()
    refuse_failed(results, model, f'PyTorch {torch.__version__} ({settings.precision}) on {device.name}')
    kept.write(results)
    return 'passed'


def _has_passed(results: Any) -> bool:
    return bool(results) and all(entry['passed'] is True for entry in results.values())


def _facts(model: ModelFolder, settings: EngineSettings, device: CpuDevice) -> tuple[Any, ...]:
    """What the outcome depends on: the model, the libraries, the GPU and how it is used."""
    return (
        model.weights_sha256,
        *(graph.sha256 for graph in model.graphs.values()),
        settings.precision,
        settings.cuda_graphs,
        version(),
        torch.__version__,
        torch.version.cuda,
        torch.backends.cudnn.version(),
        device.name,
        driver_version(),
    )
