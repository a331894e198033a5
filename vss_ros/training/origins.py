"""What a training is made of beyond the text of its recipe; kept beside its checkpoints for --resume."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from vss_ros.core.errors import SettingsError
from vss_ros.core.files.paths import user_path
from vss_ros.core.model.files import sha256_of
from vss_ros.core.model.folder import load_model
from vss_ros.training.start import Origin, origin_of
from vss_ros.training.teacher import named_teachers

if TYPE_CHECKING:
    from vss_ros.training.gather import Gathered
    from vss_ros.training.recipe import Recipe


def origins_of(recipe: Recipe, data: Gathered) -> dict[str, Any]:
    """The class set in full, and the models and the data with digests.

    Raises:
        ModelError, SourceError: one of them cannot be read.
    """
    teachers = {
        stage.name: ' and '.join(_model(origin) for origin in named_teachers(named))
        for stage in recipe.stages
        if (named := getattr(stage.sampling, 'teacher', '') or getattr(stage.sampling, 'light', ''))
    }
    return {
        'classes': asdict(data.class_set),
        'start': {name: _start(name, entry) for name, entry in recipe.start.items()},
        'teachers': teachers,
        'data': data.describe(),
    }


def check_classes(before: Any, now: dict[str, Any]) -> None:
    """Raises SettingsError where the ids of two runs, see `origins_of`, mean other classes."""
    try:
        known = list(before['classes']['names'])
    except (KeyError, TypeError):
        return
    names = list(now['classes']['names'])
    if known != names:
        raise SettingsError(
            f'the checkpoints know the classes {", ".join(map(str, known))}, the recipe now has '
            f'{", ".join(names)}; resume with the class set as it was, or start over with another --runs'
        )


def _start(name: str, entry: object) -> str:
    origin = origin_of(name, entry)
    what = _file(origin) if origin.is_file else _model(f'{origin.place}/{origin.prefix}')
    return what + (f'; without {", ".join(origin.without)}' if origin.without else '')


def _file(origin: Origin) -> str:
    path = user_path(origin.place)
    prefix = f', {origin.prefix}' if origin.prefix else ''
    return f'{path.name}{prefix}; sha256 of the file {sha256_of(path)[:16]}'


def _model(origin: str) -> str:
    model = load_model(origin.rpartition('/')[0], graphs=False)
    digest = sha256_of(model.weights) if model.weights is not None else 'no weights'
    return f'{model.name}, {origin.rpartition("/")[2]}; sha256 of the weights {digest[:16]}'
