"""Writes one graph of a method as an ONNX file that keeps the rules of `onnx_rules`."""

from __future__ import annotations

import ast
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from vss_ros.core.errors import ModelError
from vss_ros.core.model.files import sha256_of
from vss_ros.exporting.description import spec
from vss_ros.exporting.onnx_rules import broken_rules
from vss_ros.methods.method import GraphExample, Method

IR_VERSION = 8  # the oldest that has opset 18, for the sake of old runtimes
OPSET = 18  # from 20 on GridSample spells its mode so that TensorRT silently reads the nearest cell


def write_graph(method: Method, graph: str, example: GraphExample, folder: Path) -> dict[str, Any]:
    """Writes one graph into `folder` and returns its entry of model.yaml.

    Args:
        example: tensors of the shapes that the graph is to have.
    Raises:
        ModelError: it cannot be written as ONNX, or breaks a rule of export; the message names it.
    """
    # Clones, because inputs that are one and the same tensor would become one input of the graph.
    inputs = tuple(tensor.clone() for tensor in example.inputs.values())
    try:
        with _quiet_exporter(), torch.no_grad():
            program = torch.onnx.export(
                _Graph(method, graph),
                inputs,
                input_names=list(example.inputs),
                output_names=list(example.outputs),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, ImportError) as error:
        raise ModelError(f'graph {graph!r} cannot be written as ONNX: {_reason(error)}') from error
    assert program is not None  # as long as dynamo=True
    model = program.model_proto
    origins = _origins(model)
    _forget_origin(model)
    model.ir_version = IR_VERSION
    broken = broken_rules(model, origins)
    if broken:
        raise ModelError(f'graph {graph!r} breaks a rule of export: ' + '; '.join(broken))
    file = folder / f'{graph}.onnx'
    onnx.save_model(model, str(file))
    return {
        'file': file.name,
        'sha256': sha256_of(file),
        'inputs': {name: spec(tensor) for name, tensor in example.inputs.items()},
        'outputs': {name: spec(tensor) for name, tensor in example.outputs.items()},
    }


class _Graph(nn.Module):
    """One graph of a method as the exporter wants it: tensors in, a tuple of tensors out."""

    def __init__(self, method: Method, graph: str) -> None:
        super().__init__()
        self.method = method
        self.graph = graph

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.method.call(self.graph, *tensors).values())


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter remarks on libraries it could use and on its own deprecations."""
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)


def _reason(error: BaseException) -> str:
    """The first line of what an error of the exporter began with, and the line of code that it names."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip()
    places = re.findall(r'File "([^"]+)", line (\d+)', text)
    return text.partition('\n')[0] + (f' ({places[-1][0]}, line {places[-1][1]})' if places else '')


def _origins(model: onnx.ModelProto) -> dict[str, str]:
    """Names of nodes -> the module of the method that they were made of, where the exporter notes one."""
    origins = {}
    for node in model.graph.node:
        notes = {note.key: note.value for note in node.metadata_props}
        try:
            modules, kinds = (
                ast.literal_eval(notes.get(f'pkg.torch.onnx.{key}', '[]'))
                for key in ('name_scopes', 'class_hierarchy')
            )
        except (ValueError, SyntaxError):  # as another version of PyTorch may write them
            continue
        if len(modules) == len(kinds) > 1 and modules[-2]:  # the last one is the operation
            module, kind = modules[-2].removeprefix('method.'), kinds[-2].rpartition('.')[2]
            origins[node.name] = f'{module}, {kind}'
    return origins


def _forget_origin(model: onnx.ModelProto) -> None:
    """Drops the exporter's notes: they are most of a small file and name the paths of this machine."""
    graph = model.graph
    for noted in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        noted.doc_string = ''
        del noted.metadata_props[:]
    del graph.value_info[:]
