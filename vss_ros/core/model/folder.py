"""A trained model on disk: `model.yaml`, one ONNX file per graph, `weights.safetensors`.

A large one may come without graphs, as weights alone; see `first_use`.

`model.yaml` is the contract between training and runtime; the runtime knows nothing else of a method.
Loading checks every file (`files`) and proves that every step closes (`steps`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from vss_ros.core.classes import FOLDER, ClassSet, classes_of, load_classes
from vss_ros.core.errors import ModelError, SettingsError, shortened
from vss_ros.core.files.paths import user_path
from vss_ros.core.files.share import share_names, share_path
from vss_ros.core.files.strict_yaml import load_strictly
from vss_ros.core.frame import MAX_SIDE
from vss_ros.core.model import first_use
from vss_ros.core.model.accuracy_model import EXPECTED_ACCURACY, AccuracyModel
from vss_ros.core.model.files import GraphSpec, TensorSpec, checked_file, read_checked
from vss_ros.core.model.steps import CARRIED, FLOWS, check_steps

FORMAT = 1
MODEL_FILE = 'model.yaml'
ENTRIES = (  # of format 1; another set of entries is another format
    'format',
    'name',
    'method',
    'options',
    'classes',
    'image',
    'flow',
    'steps',
    'state',
    'delay_frames',
    'correction_interval',
    'graphs',
    'weights',
    'training',
    EXPECTED_ACCURACY,
)
FILE_ENTRIES = ('file', 'sha256')
GRAPH_ENTRIES = (*FILE_ENTRIES, 'inputs', 'outputs', 'precisions')
LOWER_PRECISIONS = ('fp16', 'int8', 'int8_symmetric')  # that a graph may have files of
DTYPES = ('uint8', 'int32', 'int64', 'float16', 'float32')
MAX_DELAY_FRAMES = 8
Tensor = TypeVar('Tensor')  # an engine's array, or what is said of one


@dataclass(frozen=True)
class ModelFolder:
    """A model that was read and checked.

    Attributes:
        method: name of the method in `vss_ros.methods`, used only by the torch engine and training.
        options: what rebuilds the method's networks.
        image_size: (height, width) in pixels that the graphs were exported for.
        flow: where the tensor `flow` comes from: `network` (a graph), one of `HOST_FLOWS`, or `none`.
        steps: stage names of the `key`, the `propagated` and the `carried` step, in order.
        state: output name -> input name on the next frame. A `carried` step leaves it as it was.
        delay_frames: how many frames before the newest image the results of a step belong to.
        correction_interval: of the frames between key frames each n-th takes the `propagated` step, the
            others the `carried` one.
        expected_accuracy: predicts how well a frame will be propagated; None: not fitted to this model.
    """

    path: Path
    name: str
    method: str
    options: Mapping[str, Any]
    classes: ClassSet
    image_size: tuple[int, int]
    flow: str
    steps: Mapping[str, tuple[str, ...]]
    state: Mapping[str, str]
    graphs: Mapping[str, GraphSpec]
    weights: Path | None = None
    weights_sha256: str = ''
    training: Mapping[str, Any] = field(default_factory=dict)
    delay_frames: int = 0
    correction_interval: int = 1
    expected_accuracy: AccuracyModel | None = None

    def state_of(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the next frame takes of all that a step has, under the names that it has there."""
        return {later: tensors[name] for name, later in self.state.items()}

    @property
    def propagates(self) -> bool:
        return 'propagated' in self.steps

    def corrects_every(self, wanted: int = 0) -> int:
        """Of the frames between key frames each n-th takes the `propagated` step: n.

        Args:
            wanted: what a stream asks for, see `StreamSettings.correction_interval`; 0: as the model says.
        """
        return (wanted or self.correction_interval) if CARRIED in self.steps else 1

    def read_weights(self) -> bytes:
        """The bytes of its weights, as safetensors.

        Raises:
            ModelError: it has none, or they are not those that model.yaml vouches for.
        """
        if self.weights is None:
            raise ModelError(f'{self.path} has no weights, only graphs; use a model that vss export made')
        return read_checked(self.weights, self.weights_sha256)

    @property
    def computes_all_in_full(self) -> bool:
        """Whether all stages of a propagated frame are those of a key frame: propagating saves nothing.

        True also for a model without propagated frames.
        """
        return set(self.steps.get('propagated', ())) <= set(self.steps['key'])

    def has_precision(self, precision: str) -> bool:
        """Whether a graph has a file of this precision beside the fp32 one."""
        return any(precision in graph.precisions for graph in self.graphs.values())

    def flow_of(self, motion: str) -> str:
        """Where flow comes from with a setting `motion`, see `StreamSettings`."""
        return self.flow if motion == 'model' else motion

    def graphs_in(self, precision: str) -> dict[str, GraphSpec]:
        """The graphs with their files of one precision; a graph that has none, `warp` say, stays fp32.

        Raises:
            ModelError: the model has no file of this precision at all.
        """
        if precision == 'fp32':
            return dict(self.graphs)
        if not self.has_precision(precision):
            came_with_package = self.name in list_models()
            raise ModelError(
                f'model {self.name} has no {precision} graphs; make '
                + ('a copy that has them' if came_with_package else 'them')
                + f' with: vss export {self.path}'
                + (' -o mine' if came_with_package else '')
                + f' --precision {precision.partition("_")[0]}'
                + (' --calibrate FOLDER' if precision.startswith('int8') else '')
            )
        graphs = {}
        for name, graph in self.graphs.items():
            file, sha256 = graph.precisions.get(precision, (graph.file, graph.sha256))
            graphs[name] = replace(graph, file=file, sha256=sha256)
        return graphs


def find_model(name_or_path: str | Path) -> Path:
    """A model folder's path: a path as it is, a bare name under the share folder's `models/`.

    Raises:
        ModelError: there is no such folder; the message lists the models at hand.
    """
    path = user_path(name_or_path)
    if (path / MODEL_FILE).is_file():
        return path
    if path.parent == Path() and str(name_or_path) not in ('', '.', '..'):
        try:
            return share_path(f'models/{name_or_path}/{MODEL_FILE}').parent
        except SettingsError:
            pass
    known = ', '.join(list_models()) or 'none'
    raise ModelError(
        f"model '{name_or_path}' was not found: no {MODEL_FILE} in {path}; "
        f'use a folder made by `vss export`, or one of the models at hand: {known}'
    )


def list_models() -> list[str]:
    """Names of the models that came with the package."""
    try:
        folder = share_path('models')
    except SettingsError:
        return []
    return sorted(file.parent.name for file in folder.glob(f'*/{MODEL_FILE}'))


def load_model(name_or_path: str | Path, graphs: bool = True, make: bool = True) -> ModelFolder:
    """Reads and checks a model folder, the sha256 of every file included.

    Args:
        graphs: whether they are needed. A model that came without them is otherwise given as it is.
        make: whether those that are yet to be made are made. Otherwise it is given as it is, too.
    Raises:
        ModelError: the folder is missing, damaged, unsafe or does not close its steps.
        MissingLibraryError: its graphs are yet to be made, and PyTorch is not installed.
        SettingsError: it came without graphs, and the user has no home to keep them in.
    """
    path = find_model(name_or_path)
    model = _read(path)
    if model.graphs or not graphs:
        return model
    return first_use.complete(model, (path / MODEL_FILE).read_bytes(), _read, make)


def _read(path: Path) -> ModelFolder:
    try:
        content = load_strictly((path / MODEL_FILE).read_text(), references=False)  # which are never written
    except Exception as error:  # beside its own errors, whatever reading a strange character raises
        raise ModelError(f'{path / MODEL_FILE} cannot be read: {shortened(str(error))}') from error
    try:
        if content is None:
            raise ValueError('it is empty')
        model = _parse(path, content)
        if content.get('graphs'):
            check_steps(model)
        elif model.weights is None:
            raise ValueError('it has neither graphs nor weights')
        _check_options(model)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        reason = f'no entry {error}' if isinstance(error, KeyError) else str(error)
        raise ModelError(
            f'{path / MODEL_FILE} is not a model description: {shortened(reason)}; '
            'mend it, or export the model again'
        ) from error
    except SettingsError as error:
        raise ModelError(f'{path / MODEL_FILE}: {shortened(str(error))}') from error
    return model


def _parse(path: Path, content: Any) -> ModelFolder:
    content = _mapping('it', content)
    if type(content['format']) is not int or content['format'] != FORMAT:
        raise ValueError(f'format is {content["format"]!r}; this version reads the number {FORMAT}')
    _check_known('it', content, ENTRIES)
    delay_frames = content.get('delay_frames', 0)
    if type(delay_frames) is not int or not 0 <= delay_frames <= MAX_DELAY_FRAMES:
        raise ValueError(f'delay_frames is {delay_frames!r}; expected 0 to {MAX_DELAY_FRAMES}')
    correction_interval = content.get('correction_interval', 1)
    if type(correction_interval) is not int or correction_interval < 1:
        raise ValueError(f'correction_interval is {correction_interval!r}; expected 1 or more')
    flow = content.get('flow', FLOWS[0])
    if flow not in FLOWS:
        raise ValueError(f'flow is {flow!r}; expected one of {", ".join(FLOWS)}')
    weights = _mapping('weights', content.get('weights') or {})
    _check_known('weights', weights, FILE_ENTRIES)
    steps = {name: _stages(name, stages) for name, stages in _mapping('steps', content['steps']).items()}
    in_use = {stage for stages in steps.values() for stage in stages}
    return ModelFolder(
        path=path,
        name=str(content.get('name', path.resolve().name)),
        method=str(content['method']),
        options=_mapping('options', content.get('options') or {}),
        classes=_classes(content['classes'], path),
        image_size=_image_size(_mapping('image', content['image'])),
        flow=flow,
        steps=steps,
        state=_mapping('state', content.get('state') or {}),
        graphs={
            name: _graph(path, name, _mapping(f'graph {name}', entry))
            for name, entry in _mapping('graphs', content.get('graphs') or {}).items()
            if name in in_use  # no engine needs the others
        },
        weights=checked_file(path, weights) if weights else None,
        weights_sha256=weights['sha256'] if weights else '',
        training=_mapping('training', content.get('training') or {}),
        delay_frames=delay_frames,
        correction_interval=correction_interval,
        expected_accuracy=_accuracy_model(content.get(EXPECTED_ACCURACY)),
    )


def _mapping(what: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f'{what} is {value!r}; expected entries, each a name and a value')
    return value


def _check_known(what: str, entries: Mapping[str, Any], known: Sequence[str]) -> None:
    if unknown := [str(name) for name in entries if name not in known]:
        raise ValueError(f'{what} has unknown entries: {", ".join(unknown)}; it may have {", ".join(known)}')


def _image_size(image: dict[str, Any]) -> tuple[int, int]:
    _check_known('image', image, ('height', 'width'))
    for side in ('height', 'width'):
        if type(image[side]) is not int or not 0 < image[side] <= MAX_SIDE:
            raise ValueError(f'{side} of image is {image[side]!r}; expected a whole number, 1 to {MAX_SIDE}')
    return image['height'], image['width']


def _stages(step: str, stages: Any) -> tuple[str, ...]:
    if not isinstance(stages, list) or not all(isinstance(stage, str) for stage in stages):
        raise ValueError(f'step {step} is {stages!r}; expected a list of stages, such as [segmenter]')
    return tuple(stages)


def _graph(path: Path, name: str, entry: dict[str, Any]) -> GraphSpec:
    _check_known(f'graph {name}', entry, GRAPH_ENTRIES)
    precisions = _mapping('precisions', entry.get('precisions') or {})
    _check_known(f'precisions of {name}', precisions, LOWER_PRECISIONS)
    return GraphSpec(
        name,
        checked_file(path, entry),
        entry['sha256'],
        _tensors(_mapping('inputs', entry['inputs'])),
        _tensors(_mapping('outputs', entry['outputs'])),
        {
            precision: (checked_file(path, variant), variant['sha256'])
            for precision, variant in precisions.items()
        },
    )


def _check_options(model: ModelFolder) -> None:
    """What the runtime reads is an option of some methods, too; built again, a model must be the same."""
    for name in ('correction_interval', 'flow'):
        value = getattr(model, name)
        option = model.options.get(name, value)
        if option != value:
            raise ModelError(
                f'{model.path / MODEL_FILE}: {name} is {value!r}, and {option!r} in options; make them one'
            )


def _accuracy_model(entry: Any) -> AccuracyModel | None:
    if entry is None:
        return None
    entry = _mapping(EXPECTED_ACCURACY, entry)
    weights = {name: float(weight) for name, weight in _mapping('weights', entry['weights']).items()}
    notes = {name: value for name, value in entry.items() if name not in ('bias', 'weights')}
    return AccuracyModel(float(entry['bias']), weights, notes)


def _classes(entry: Any, path: Path) -> ClassSet:
    """The package's own by their name, any others are written out. Never by a path: it may lead outside."""
    if isinstance(entry, dict):
        _check_known('classes', entry, ('name', 'classes', 'groups', 'scene'))
        name = entry['name']
        if not isinstance(name, str) or not re.fullmatch(r'[A-Za-z0-9_-]+', name):
            raise ValueError(f'the name of classes is {name!r}; expected letters, digits, _ and -')
        return classes_of(entry, name, f'`classes` in {path / MODEL_FILE}')
    if entry not in (known := share_names(FOLDER)):
        raise ValueError(
            f'classes is {entry!r}; expected one of {", ".join(known)}, or all of them written out: '
            '{name: mine, classes: [{name: road, colour: [128, 64, 128]}, ...]}'
        )
    return load_classes(entry)


def _tensors(entries: dict[str, Any]) -> dict[str, TensorSpec]:
    tensors = {}
    for name, spec in entries.items():
        match spec:
            case [dtype, [*shape]] if dtype in DTYPES and all(type(n) is int and n >= 0 for n in shape):
                tensors[name] = TensorSpec(dtype, tuple(shape))
            case _:
                raise ValueError(
                    f'tensor {name} is {spec!r}; expected a type, one of {", ".join(DTYPES)}, and sizes, '
                    'such as [uint8, [1, 360, 480, 3]]'
                )
    return tensors
