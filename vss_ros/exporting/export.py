"""Writes a method as a model folder: one ONNX file per graph, the weights and model.yaml.

A model is built beside its place, proved there (its steps close, its graphs keep the rules of
`onnx_rules`, ONNX Runtime agrees with the method that the folder rebuilds in PyTorch) and moved into place
as a whole; what fails leaves nothing.
"""

from __future__ import annotations

import ast
import copy
import logging
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
import yaml
from torch import Tensor, nn

from vss_ros.core.classes import ClassSet, load_classes
from vss_ros.core.errors import ModelError, SettingsError
from vss_ros.core.files.drafts import Draft, check_writable
from vss_ros.core.files.paths import real_path, user_path
from vss_ros.core.model.accuracy_model import EXPECTED_ACCURACY, AccuracyModel
from vss_ros.core.model.files import sha256_of
from vss_ros.core.model.folder import FORMAT, MODEL_FILE, ModelFolder, load_model
from vss_ros.exporting.check import check_method
from vss_ros.exporting.fused_norms import fuse_norms
from vss_ros.exporting.onnx_rules import broken_rules
from vss_ros.exporting.verify import example_frames, verify
from vss_ros.exporting.weights import load_method, save_weights, stored_dtype, stored_state
from vss_ros.methods import METHODS, options_of
from vss_ros.methods.method import GraphExample, Method

IR_VERSION = 8  # the oldest that has opset 18, for the sake of old runtimes
OPSET = 18  # from 20 on GridSample spells its mode so that TensorRT silently reads the nearest cell
WEIGHTS_FILE = 'weights.safetensors'


def export(
    method: Method,
    folder: Path | str,
    *,
    name: str,
    class_set: str | ClassSet,
    image_size: tuple[int, int],
    training: dict[str, Any] | None = None,
    weights_dtype: str = 'fp32',
    expected_accuracy: AccuracyModel | None = None,
    keep_graphs: bool = True,
    progress: Callable[[str], None] | None = None,
) -> ModelFolder:
    """Writes `method` as a model folder and proves it; replaces a model that is there already.

    Args:
        name: what the model calls itself.
        class_set: the classes, or their name, such as `camvid11`, or a YAML file.
        image_size: (height, width) in pixels of the images the graphs take.
        training: what to remember of the training; plain values only.
        weights_dtype: how kernels are stored, `fp32` or `fp16`. The graphs compute in fp32 either way,
            with the stored values.
        expected_accuracy: of this model, if it was fitted.
        keep_graphs: whether the folder holds the graphs, or the weights alone; see `core.model.first_use`.
        progress: takes one line per stage.
    Raises:
        ModelError: a graph breaks a rule or differs from PyTorch, the method cannot be rebuilt from what is
            stored, the classes do not fit, or `folder` holds something that is no model. Nothing is written
            then.
        SettingsError, ShapeError: an argument cannot be used; the message says which.
        MissingLibraryError: ONNX Runtime is not installed.
    """
    report = progress or (lambda line: None)
    folder = real_path(user_path(folder))
    check_target(folder)
    check_method(method)
    classes = load_classes(class_set) if isinstance(class_set, str) else class_set
    if len(classes) != method.classes:
        raise ModelError(
            f'the method has {method.classes} classes, class set {classes.name} has {len(classes)}'
        )
    if min(image_size) < 1:
        raise SettingsError(f'image_size is {image_size}; use a height and a width above 0')

    state = stored_state(method, weights_dtype)
    method = copy.deepcopy(method).cpu().eval()
    method.load_state_dict(state)  # the graphs compute with exactly what is stored
    method.fold(image_size)
    frames = [torch.from_numpy(frame[None]) for frame in example_frames(image_size)]
    fuse_norms(method, lambda: method.examples(frames[0]))

    draft = Draft(folder, overwrite=True)
    try:
        draft.path.mkdir()
        graphs = {}
        for graph, example in method.examples(frames[0], frames[1]).items():
            report(f'writing graph {graph}')
            graphs[graph] = _write_graph(method, graph, example, draft.path)
        report(f'writing {WEIGHTS_FILE} ({weights_dtype})')
        save_weights(state, draft.path / WEIGHTS_FILE)
        content = {
            **_description(method, name, classes, image_size),
            'graphs': graphs,
            'weights': {'file': WEIGHTS_FILE, 'sha256': sha256_of(draft.path / WEIGHTS_FILE)},
            'training': training or {},
        }
        if expected_accuracy is not None:
            content[EXPECTED_ACCURACY] = expected_accuracy.as_yaml()
        _write_yaml(content, draft.path / MODEL_FILE)
        report(f'comparing ONNX Runtime with PyTorch on {len(frames)} frames')
        _prove(method, load_model(draft.path), frames)
        if not keep_graphs:
            _drop_graphs(content, draft.path)
        _keep_additions(folder, draft.path)
        draft.publish()
    except ModelError as error:
        raise ModelError(str(error).replace(str(draft.path), str(folder))) from error
    finally:
        draft.discard()
    return load_model(folder, graphs=keep_graphs)


def export_again(model: ModelFolder, folder: Path) -> None:
    """Writes a model as it is, with its graphs, into another folder."""
    export(
        load_method(model),
        folder,
        name=model.name,
        class_set=model.classes,
        image_size=model.image_size,
        training=dict(model.training),
        weights_dtype=stored_dtype(model),
        expected_accuracy=model.expected_accuracy,
    )


def _prove(method: Method, model: ModelFolder, frames: list[Tensor]) -> None:
    """Proves that the graphs compute what the method computes that is rebuilt from the folder.

    Args:
        method: the one that was exported.
    """
    try:
        verify(load_method(model), model, frames)
    except (ModelError, SettingsError) as error:
        verify(method, model, frames)  # raises if it is not the rebuilding that fails, but the graphs
        lost = [option for option in options_of(type(method)) if option not in method.options]
        what = f'it lacks {", ".join(lost)}' if lost else f'it has {", ".join(method.options) or "none"}'
        raise ModelError(
            f'{model.path / MODEL_FILE} would not rebuild the method that was exported: {error}. Its options '
            f'do not tell all that the method was made with: {what}. Hand every option to super().__init__, '
            'and let networks depend on nothing else'
        ) from error


def _description(method: Method, name: str, classes: ClassSet, image_size: tuple[int, int]) -> dict[str, Any]:
    """What model.yaml says of a method, its graphs and weights left out."""
    return {
        'format': FORMAT,
        'name': name,
        'method': method_name(method),
        'options': dict(method.options),
        'classes': classes.as_entry(),
        'image': {'height': image_size[0], 'width': image_size[1]},
        'flow': str(method.options.get('flow', 'none')),
        'steps': {step: list(stages) for step, stages in method.steps.items()},
        'state': dict(method.state),
        'delay_frames': method.delay_frames,
        'correction_interval': method.correction_interval,
    }


def _drop_graphs(content: dict[str, Any], folder: Path) -> None:
    for graph in content.pop('graphs').values():
        (folder / graph['file']).unlink()
    _write_yaml(content, folder / MODEL_FILE)


def method_name(method: Method) -> str:
    """The key of METHODS that builds methods of this class."""
    wanted = f'{type(method).__module__}:{type(method).__qualname__}'
    for name, target in METHODS.items():
        if target == wanted:
            return name
    raise ModelError(f'{wanted} is in no line of METHODS, so a model of it could not be rebuilt; add one')


class _Graph(nn.Module):
    """One graph of a method as the exporter wants it: tensors in, a tuple of tensors out."""

    def __init__(self, method: Method, graph: str) -> None:
        super().__init__()
        self.method = method
        self.graph = graph

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.method.call(self.graph, *tensors).values())


def _write_graph(method: Method, graph: str, example: GraphExample, folder: Path) -> dict[str, Any]:
    """Writes one graph and returns its entry of model.yaml."""
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
        'inputs': {name: _spec(tensor) for name, tensor in example.inputs.items()},
        'outputs': {name: _spec(tensor) for name, tensor in example.outputs.items()},
    }


def _spec(tensor: Tensor) -> list[Any]:
    return _Row([str(tensor.dtype).removeprefix('torch.'), _Row(tensor.shape)])


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


class _Row(list):
    """A list that YAML writes on one line."""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True  # a description that refers to itself would be refused


_Dumper.add_representer(
    _Row, lambda dumper, row: dumper.represent_sequence('tag:yaml.org,2002:seq', row, flow_style=True)
)


def _write_yaml(content: dict[str, Any], file: Path) -> None:
    try:
        text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=110)
    except yaml.representer.RepresenterError as error:
        raise ModelError(f'training and options hold plain values only: {error.args[0]}') from error
    file.write_text(text)


def check_target(folder: Path) -> None:
    """Only a model may be replaced; anything else in the way belongs to somebody.

    Raises:
        ModelError: there is something else, or it is where we are.
        SettingsError: nothing can be written there.
    """
    folder, here = real_path(folder), real_path(Path())
    if folder in (here, *here.parents):
        raise ModelError(f'{folder} would be replaced as a whole, and is where you are; name another folder')
    if folder.is_dir():
        free = (folder / MODEL_FILE).is_file() or not any(folder.iterdir())
    else:
        free = not os.path.lexists(folder)  # a link that leads back to itself is there, too
    if not free:
        raise ModelError(f'{folder} is there and is no model folder; choose another name or move it away')
    check_writable(folder.parent)


def _keep_additions(folder: Path, draft: Path) -> None:
    """Copies what people added to the model that is replaced, a README say, or graphs of their own."""
    if not (folder / MODEL_FILE).is_file():
        return
    old = {MODEL_FILE, *_files_named_in(folder / MODEL_FILE)}
    for entry in folder.iterdir():
        if entry.name in old or (draft / entry.name).exists():
            continue
        if entry.is_dir():
            shutil.copytree(entry, draft / entry.name, symlinks=True)
        else:
            shutil.copy2(entry, draft / entry.name, follow_symlinks=False)


def _files_named_in(description: Path) -> set[str]:
    """The names behind every `file:` of a model.yaml; none if it cannot be read."""
    try:
        nodes = [yaml.compose(description.read_text(), yaml.SafeLoader)]
    except (yaml.YAMLError, UnicodeError):
        return set()
    names, seen = set(), set()
    while nodes:
        node = nodes.pop()
        if id(node) in seen:  # it may hold itself
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            names |= {str(value.value) for key, value in node.value if key.value == 'file'}
            nodes += [value for _, value in node.value]
    return names
