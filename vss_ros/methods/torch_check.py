"""Whether PyTorch on a GPU computes what ONNX Runtime does: asked once, then remembered."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import torch

from vss_ros.core.engines import Engine, engine_class
from vss_ros.core.engines.engine_cache import EngineCache, write_private
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
    try:
        file = EngineCache(settings.engine_cache).folder / f'torch-check-{_key(model, settings, device)}.json'
    except VssError as error:  # a robot with a read-only disk checks at every start
        _log.warning('%s; the self-check of engine torch is not remembered', error)
        file = None
    if file and _has_passed(file):
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
    if file:
        try:
            write_private(file, json.dumps(results, indent=1).encode())
        except OSError as error:
            _log.warning('%s cannot be written (%s); the self-check is not remembered', file, error)
    return 'passed'


def _has_passed(file: Path) -> bool:
    """Whether a result that was kept says so; one that cannot be understood is made again."""
    try:
        results = json.loads(file.read_text())
        return bool(results) and all(entry['passed'] is True for entry in results.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def _key(model: ModelFolder, settings: EngineSettings, device: CpuDevice) -> str:
    """What the outcome depends on: the model, the libraries, the GPU and how it is used."""
    facts = [
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
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
