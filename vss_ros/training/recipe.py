"""A training as YAML: which method, on what, in which stages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

import yaml

from vss_ros.core.classes import ClassSet, load_classes
from vss_ros.core.described import KINDS, check_choice, in_words, is_of
from vss_ros.core.errors import SettingsError
from vss_ros.core.files.paths import user_path
from vss_ros.core.files.share import named_file
from vss_ros.core.files.strict_yaml import load_strictly
from vss_ros.core.frame import CELL, MAX_SIDE
from vss_ros.exporting.weights import WEIGHTS_DTYPES
from vss_ros.training.clips import SceneClasses
from vss_ros.training.labelled_video import layout_and_split
from vss_ros.training.optimiser import FitSettings
from vss_ros.training.stages import stage_class
from vss_ros.training.streets import StreetSettings

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FOLDER = 'config/train'  # of the recipes that came with the package
STREETS = 'streets'  # the share of drawn streets; every other share names a --data
OF_CLASSES = ('thin_classes', 'paste_classes', 'sky', 'ground', 'background', 'objects', 'cars')  # ids
MOST_SEED = 2**32 - 1
NOT_WRITTEN = ('name', 'height', 'width', 'text')  # of a Recipe, that its file does not have as entries
Settings = TypeVar('Settings', bound='DataclassInstance')


@dataclass(frozen=True)
class StageRecipe:
    """One stage: how it is optimised, what it samples, and from which data in which shares."""

    name: str
    fit: FitSettings
    sampling: Any
    shares: Mapping[str, float]


@dataclass(frozen=True)
class Recipe:
    """A whole training. `stages` run in the order in which they are written.

    `start`: networks that begin with the weights of an existing model, see `start_from`. `layouts`: data that
    is a published data set, name -> layout/split of config/datasets, see `read_layout`. `scene`: none if
    neither the recipe nor its class set says what the classes are in a street.
    """

    name: str
    method: str
    classes: str
    height: int
    width: int
    stages: tuple[StageRecipe, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    start: Mapping[str, Any] = field(default_factory=dict)
    layouts: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    held_out: float = 0.1
    weights: str = 'fp32'
    streets: StreetSettings = field(default_factory=StreetSettings)
    scene: SceneClasses | None = None
    text: str = ''  # the file it was read from

    def __post_init__(self) -> None:
        check_choice('weights', self.weights, WEIGHTS_DTYPES)
        if any(side < CELL or side % CELL for side in (self.height, self.width)):
            near = [CELL * max(1, round(side / CELL)) for side in (self.width, self.height)]
            raise SettingsError(
                f'image is {self.width}x{self.height}; use multiples of {CELL}, such as {near[0]}x{near[1]}'
            )
        if not 0 <= self.held_out < 1:
            raise SettingsError(f'held_out is {self.held_out}; use a share of 0 to below 1')
        if max(self.height, self.width) > MAX_SIDE:
            raise SettingsError(f'image is {self.width}x{self.height}; use sides of {MAX_SIDE} at most')
        if not 0 <= self.seed <= MOST_SEED:
            raise SettingsError(f'seed is {self.seed}; use 0 to {MOST_SEED}')

    @property
    def data(self) -> set[str]:
        """Names of the data that must be given."""
        return {name for stage in self.stages for name in stage.shares} - {STREETS}


def load_recipe(name_or_path: str) -> Recipe:
    """Read a recipe from a YAML file, or by its name from `config/train`.

    Raises:
        SettingsError: there is no such file, or an entry is unknown, missing or of no use.
    """
    path = user_path(name_or_path)
    if not path.is_file():
        path = named_file(name_or_path, FOLDER, 'recipe')
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f'{path} cannot be read as a recipe: {error}') from error
    try:
        content = load_strictly(text)
    except yaml.YAMLError as error:
        raise SettingsError(f'{path} cannot be read as a recipe: {" ".join(str(error).split())}') from error
    try:
        return replace(parse_recipe(path.stem, content), text=text)
    except SettingsError as error:
        raise SettingsError(f'{path}: {error}') from error


def parse_recipe(name: str, content: Any) -> Recipe:
    """The recipe in a YAML document.

    Raises:
        SettingsError: the message names the entry and what was expected.
    """
    entries = dict(_mapping('the recipe', content))
    if unknown := set(NOT_WRITTEN) & set(entries):
        raise SettingsError(f'the recipe has no entry {", ".join(sorted(unknown))}')
    image = dict(_mapping('image', entries.pop('image', None)))
    stages = _mapping('stages', entries.pop('stages', None))
    unknown = set(image) - {'height', 'width'}
    if unknown or len(image) != 2 or not stages:
        raise SettingsError('a recipe needs image: {height: ..., width: ...} and at least one stage')
    entries['streets'] = _build(StreetSettings, 'streets', entries.get('streets', {}))
    _check_kind('the recipe', 'classes', entries.get('classes'), str)
    class_set = load_classes(entries['classes'])
    entries['scene'] = _scene(class_set, entries.get('scene', {}))
    for entry in ('options', 'start', 'layouts'):
        entries[entry] = _mapping(entry, entries.get(entry, {}))
    for entry, layout in entries['layouts'].items():
        _check_kind('layouts', entry, layout, str)
        try:
            layout_and_split(layout, entries['classes'])
        except SettingsError as error:
            raise SettingsError(f'layouts: {entry} is {layout!r}; {error}') from error
    entries['stages'] = tuple(_stage(stage, value, class_set) for stage, value in stages.items())
    recipe = _build(Recipe, 'the recipe', {'name': name, **image, **entries})
    if unused := set(recipe.layouts) - recipe.data:
        raise SettingsError(f'layouts names {", ".join(sorted(unused))}, of which no stage has a share')
    return recipe


def _scene(class_set: ClassSet, written: Any) -> SceneClasses | None:
    entries = {**class_set.scene, **_mapping('scene', written)}
    if not entries:
        return None
    scene = _build(SceneClasses, 'scene', entries)
    _check_classes('scene', scene, class_set)
    return scene


def _stage(name: str, content: Any, class_set: ClassSet) -> StageRecipe:
    settings_class = stage_class(name).settings_class
    entries = dict(_mapping(name, content))
    unknown = set(entries) - {'fit', 'sampling', 'shares'}
    if unknown:
        raise SettingsError(f'{name} has no entry {", ".join(sorted(unknown))}; it has fit, sampling, shares')
    shares = dict(_mapping(f'{name}: shares', entries.get('shares')))
    if not shares or not all(_is_kind(float, share) and share >= 0 for share in shares.values()):
        raise SettingsError(
            f'{name}: shares must give every source a number of 0 or more, such as streets: 1'
        )
    if not sum(shares.values()) > 0:
        raise SettingsError(f'{name}: all shares are 0; give at least one source more')
    of_class_set = {'thin_classes': class_set.thin, 'paste_classes': class_set.scene.get('objects', ())}
    known = {each.name for each in fields(settings_class)}
    defaults = {entry: classes for entry, classes in of_class_set.items() if entry in known}
    sampling = {**defaults, **_mapping(f'{name}: sampling', entries.get('sampling', {}))}
    built = _build(settings_class, f'{name}: sampling', sampling)
    _check_classes(f'{name}: sampling', built, class_set)
    return StageRecipe(name, _build(FitSettings, f'{name}: fit', entries.get('fit', {})), built, shares)


def _check_classes(where: str, settings: Any, class_set: ClassSet) -> None:
    """Raises SettingsError for ids that are no classes."""
    for entry in OF_CLASSES:
        ids = getattr(settings, entry, ())
        if strange := [each for each in ids if each not in range(len(class_set))]:
            raise SettingsError(
                f'{where}: {entry} has {strange[0]}; use ids of {class_set.name}, 0 to {len(class_set) - 1}'
            )


def _build(kind: type[Settings], where: str, content: Any) -> Settings:
    """A settings dataclass from YAML: lists become tuples, unknown and missing entries errors."""
    entries = dict(_mapping(where, content))
    types = get_type_hints(kind)
    known = {each.name: types[each.name] for each in fields(kind)}
    if unknown := set(entries) - set(known):
        raise SettingsError(f'{where} has no entry {", ".join(sorted(unknown))}; it has {", ".join(known)}')
    needed = [each.name for each in fields(kind) if MISSING is each.default is each.default_factory]
    if lacking := [name for name in needed if name not in entries]:
        raise SettingsError(f'{where} lacks {", ".join(lacking)}; it needs {", ".join(needed)}')
    for name, value in entries.items():
        of_many = get_origin(known[name]) is tuple and get_args(known[name])[0] in KINDS
        if of_many or known[name] in KINDS:
            _check_kind(where, name, value, known[name])
        if of_many:
            entries[name] = tuple(value)
    try:
        return kind(**entries)
    except (TypeError, SettingsError) as error:
        raise SettingsError(f'{where}: {error}') from error


def _check_kind(where: str, name: str, value: Any, kind: Any) -> None:
    if not _is_kind(kind, value):
        hint = ', such as 0.001 or 1.0e-3' if kind is float else ''  # YAML takes 1e-3 for text
        raise SettingsError(f'{where}: {name} is {value!r}; use {in_words(kind)}{hint}')


def _is_kind(kind: Any, value: Any) -> bool:
    return is_of(kind, value) and not (isinstance(value, float) and not math.isfinite(value))


def _mapping(where: str, content: Any) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise SettingsError(f'{where} is {content!r}; expected entries of the form name: value')
    if strange := [name for name in content if not isinstance(name, str)]:  # YAML takes `on` for true
        raise SettingsError(f'{where} has the entry {strange[0]!r}, which is no text; put it in quotes')
    return content
