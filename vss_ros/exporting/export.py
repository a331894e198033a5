"""Writes a method as a model folder: one ONNX file per graph, the weights and model.yaml.

A model is built beside its place, proved there (its steps close, its graphs keep the rules of
`onnx_rules`, ONNX Runtime agrees with the method that the folder rebuilds in PyTorch) and moved into place
as a whole; what fails leaves nothing.
"""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from vss_ros.core.classes import ClassSet, load_classes
from vss_ros.core.errors import ModelError, SettingsError
from vss_ros.core.files.drafts import Draft, check_writable
from vss_ros.core.files.paths import real_path, user_path
from vss_ros.core.model.accuracy_model import EXPECTED_ACCURACY, AccuracyModel
from vss_ros.core.model.files import sha256_of
from vss_ros.core.model.folder import MODEL_FILE, ModelFolder, load_model
from vss_ros.exporting.check import check_method
from vss_ros.exporting.description import description_of, write_yaml
from vss_ros.exporting.fused_norms import fuse_norms
from vss_ros.exporting.verify import example_frames, verify
from vss_ros.exporting.weights import load_method, save_weights, stored_dtype, stored_state
from vss_ros.exporting.write_graph import write_graph
from vss_ros.methods import options_of
from vss_ros.methods.method import Method

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
            graphs[graph] = write_graph(method, graph, example, draft.path)
        report(f'writing {WEIGHTS_FILE} ({weights_dtype})')
        save_weights(state, draft.path / WEIGHTS_FILE)
        content = {
            **description_of(method, name, classes, image_size),
            'graphs': graphs,
            'weights': {'file': WEIGHTS_FILE, 'sha256': sha256_of(draft.path / WEIGHTS_FILE)},
            'training': training or {},
        }
        if expected_accuracy is not None:
            content[EXPECTED_ACCURACY] = expected_accuracy.as_yaml()
        write_yaml(content, draft.path / MODEL_FILE)
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


def _drop_graphs(content: dict[str, Any], folder: Path) -> None:
    for graph in content.pop('graphs').values():
        (folder / graph['file']).unlink()
    write_yaml(content, folder / MODEL_FILE)


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
