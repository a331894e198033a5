"""Adds graphs of another precision to a model folder, beside those in fp32.

They take and give the same tensors, so nothing but the arithmetic changes. What is added is proved first:
ONNX Runtime runs it against the fp32 graphs on frames of a synthetic street.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import yaml
from onnx import TensorProto

from vss_ros.core.engines import Engine, Tensors
from vss_ros.core.engines.onnx_runtime import OnnxRuntimeEngine
from vss_ros.core.engines.self_check import refuse_failed, self_check
from vss_ros.core.engines.wrapper import EngineWrapper
from vss_ros.core.errors import EngineError, ModelError
from vss_ros.core.model.files import GraphSpec, sha256_of
from vss_ros.core.model.folder import MODEL_FILE, ModelFolder, load_model
from vss_ros.core.model.walk import walk
from vss_ros.core.resize import fit
from vss_ros.core.settings import EngineSettings
from vss_ros.exporting.description import Row, write_yaml
from vss_ros.exporting.fused_norms import fuse_norms
from vss_ros.exporting.lower_precision import lower_precision
from vss_ros.exporting.quantise import FORMS, QUANTISED
from vss_ros.exporting.verify import example_frames
from vss_ros.exporting.weights import load_method
from vss_ros.exporting.without_argmax import without_argmax
from vss_ros.exporting.write_graph import write_graph

Progress = Callable[[str], None]
KEY_EVERY = 5  # of the frames that int8 is calibrated on
_log = logging.getLogger(__name__)


def add_fp16(model: ModelFolder, progress: Progress = lambda line: None) -> ModelFolder:
    """Adds graphs whose networks compute in fp16, with casts at their borders, for TensorRT.

    A graph without a network, `warp` say, gets no file: it stays fp32.

    Raises:
        ModelError: a graph breaks a rule of export, or differs from fp32 by more than rounding.
    """
    method = load_method(model)
    method.fold(model.image_size)
    frames = [torch.from_numpy(frame[None]) for frame in example_frames(model.image_size, 2)]
    fuse_norms(method, lambda: method.examples(frames[0]))
    examples = method.examples(*frames)  # in fp32; the tensors at the borders are the same
    lower_precision(method, torch.float16)
    with tempfile.TemporaryDirectory(prefix='.unfinished-', dir=model.path) as drafts:
        files: dict[str, Path] = {}
        for graph, example in examples.items():
            progress(f'writing graph {graph} in fp16')
            write_graph(method, graph, example, Path(drafts))
            file = Path(drafts) / f'{graph}.onnx'
            if _has_fp16(file):
                _fit_for_gpus(file)
                files[graph] = file
        _prove(model, 'fp16', files, progress)
        return _install(model, {'fp16': files})


def add_int8(
    model: ModelFolder, images: Iterable[np.ndarray], progress: Progress = lambda line: None
) -> ModelFolder:
    """Adds graphs whose convolutions compute in int8, in the two forms that runtimes want.

    `int8` has unsigned activations, for ONNX Runtime on CPUs; `int8_symmetric` signed ones around zero, for
    TensorRT and OpenVINO. Engines asked for int8 take the one that is theirs.

    Args:
        images: BGR frames of a drive, in order, that show what the camera will see; a hundred are enough.
    Raises:
        ModelError: there are too few images, or the graphs differ from fp32 by more than int8 may.
    """
    inputs = _collected_inputs(model, images)
    quantised = [name for name, graph in model.graphs.items() if _has_convolutions(graph.file)]
    if missing := [name for name in quantised if name not in inputs]:
        raise ModelError(
            f'there are too few images to calibrate int8 on: none reached {", ".join(missing)}; '
            'use a folder of frames of a drive, a hundred are enough'
        )
    with tempfile.TemporaryDirectory(prefix='.unfinished-', dir=model.path) as drafts:
        made: dict[str, dict[str, Path]] = {form: {} for form in FORMS}
        for form, files in made.items():
            for name in quantised:
                progress(f'quantising graph {name} on {len(inputs[name])} frames ({form})')
                files[name] = Path(drafts) / f'{name}.{form}.onnx'
                _quantise(model.graphs[name].file, files[name], inputs[name], form)
                if form == 'int8_symmetric':
                    _fit_for_gpus(files[name])
            _prove(model, form, files, progress)
        return _install(model, made)


def _prove(model: ModelFolder, precision: str, files: Mapping[str, Path], progress: Progress) -> None:
    """Raises ModelError if there are no files, or if they compute something else than those in fp32."""
    if not files:
        raise ModelError(f'model {model.name} has no network that could compute in {precision}')
    progress(f'comparing {precision} with fp32 in ONNX Runtime')
    reference = OnnxRuntimeEngine.load(model, EngineSettings('onnxruntime'))
    changed: dict[str, GraphSpec] = dict(model.graphs)
    for name, file in files.items():
        changed[name] = replace(changed[name], file=file, sha256=sha256_of(file))
    candidate = OnnxRuntimeEngine.of_graphs(changed, EngineSettings('onnxruntime'), precision)
    watched = _Watched(reference)
    results = self_check(model, candidate, watched, precision.partition('_')[0])
    if len(watched.classes) == 1:
        _log.warning(
            'model %s finds only class %s on the frames of this comparison, so it shows little; compare the '
            'two on labelled frames with vss evaluate',
            model.name,
            model.classes.names[watched.classes.pop()],
        )
    for name, entry in results.items():
        progress(f'{name}: {entry["agreement"]:.2%} of labels agree, floats differ by {entry["error"]:.2g}')
    try:
        refuse_failed(results, model, precision)
    except EngineError as error:
        raise ModelError(f'{error}. Nothing was written') from error


class _Watched(EngineWrapper):
    """An engine that remembers which classes were in the masks."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.classes: set[int] = set()

    def run(self, graph: str, tensors: Mapping[str, Any]) -> Tensors:
        given = super().run(graph, tensors)
        if 'mask' in given:
            self.classes.update(np.unique(self.to_host(given['mask'])).tolist())
        return given


def _install(model: ModelFolder, made: Mapping[str, Mapping[str, Path]]) -> ModelFolder:
    """Moves the files of each precision into the model folder, all or none.

    New files have new names, so that model.yaml is right about those it names at any time, whoever reads it.
    """
    content: dict[str, Any] = yaml.safe_load((model.path / MODEL_FILE).read_text())
    for entry in content['graphs'].values():  # back to one line per tensor
        for side in ('inputs', 'outputs'):
            entry[side] = {name: Row([dtype, Row(shape)]) for name, (dtype, shape) in entry[side].items()}
    for precision, files in made.items():
        for name, draft in files.items():
            sha256 = sha256_of(draft)
            file = model.path / f'{name}.{precision}-{sha256[:8]}.onnx'
            os.replace(draft, file)
            entry = {'file': file.name, 'sha256': sha256}
            content['graphs'][name].setdefault('precisions', {})[precision] = entry
    description = model.path / f'.unfinished-{MODEL_FILE}'
    write_yaml(content, description)
    os.replace(description, model.path / MODEL_FILE)
    installed = load_model(model.path)
    for superseded in _additional_files(model) - _additional_files(installed):
        superseded.unlink(missing_ok=True)
    return installed


def _additional_files(model: ModelFolder) -> set[Path]:
    return {file for graph in model.graphs.values() for file, _ in graph.precisions.values()}


def _fit_for_gpus(file: Path) -> None:
    onnx.save_model(without_argmax(onnx.load(str(file))), str(file))


def _has_fp16(file: Path) -> bool:
    return any(t.data_type == TensorProto.FLOAT16 for t in onnx.load(str(file)).graph.initializer)


def _collected_inputs(
    model: ModelFolder, images: Iterable[np.ndarray]
) -> dict[str, list[dict[str, np.ndarray]]]:
    """What every graph takes while the model runs over the images, in fp32."""
    engine = OnnxRuntimeEngine.load(model, EngineSettings('onnxruntime'))
    fitting = (np.ascontiguousarray(fit(image, model.image_size)) for image in images)
    inputs: dict[str, list[dict[str, np.ndarray]]] = {}
    for stage, taken, _ in walk(model, fitting, engine.run, KEY_EVERY):
        inputs.setdefault(stage, []).append(taken)
    return inputs


def _has_convolutions(file: Path) -> bool:
    return any(node.op_type in QUANTISED for node in onnx.load(str(file)).graph.node)


def _quantise(source: Path, target: Path, inputs: list[dict[str, np.ndarray]], form: str) -> None:
    """Quantises one file in a process of its own.

    The quantiser makes sessions with their own thread pools, and ONNX Runtime refuses those in a process
    that has made the shared pool.
    """
    arrays = target.with_suffix('.npz')
    named: dict[str, Any] = {
        f'{i}/{name}': array for i, feeds in enumerate(inputs) for name, array in feeds.items()
    }
    np.savez(arrays, **named)
    program = [sys.executable, '-m', 'vss_ros.exporting.quantise']
    command = [*program, str(source), str(target), str(arrays), form]
    result = subprocess.run(command, capture_output=True, text=True)
    arrays.unlink()
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ['no message'])[-1]
        raise ModelError(f'{source} cannot be quantised: {last}')
