"""Models side by side, in scores and in benchmarks: what they are called, and which of them are left out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence

from vss_ros.core.errors import MissingLibraryError, ModelError, PrecisionError, SettingsError
from vss_ros.core.model.cost import Cost, graph_costs
from vss_ros.core.model.folder import ModelFolder, load_model

_log = logging.getLogger(__name__)


def load_apart(names: Sequence[str]) -> dict[str, ModelFolder]:
    """Models by what to call them. Those of one name are told apart by what was asked for: `tiny (a/model)`.

    The models keep their names, which engines in the caches go by.

    Raises:
        ModelError: a model cannot be loaded.
        SettingsError: a model is named twice.
    """
    models = [load_model(name) for name in names]
    folders = [model.path.resolve() for model in models]
    for name, folder in zip(names, folders, strict=True):
        if folders.count(folder) > 1:
            raise SettingsError(f'model {name} is named twice; name each once')
    named = Counter(model.name for model in models)
    return {
        f'{model.name} ({name})' if named[model.name] > 1 else model.name: model
        for name, model in zip(names, models, strict=True)
    }


def check_apart(names: Iterable[str]) -> None:
    """Refuses to compare something with itself, as `auto` may turn out to be an engine that was named, too.

    Raises:
        SettingsError: two have one name.
    """
    for name, count in Counter(names).items():
        if count > 1:
            raise SettingsError(f'{name} would be measured twice; leave one of its engines out')


def counted_costs(model: ModelFolder) -> dict[str, Cost] | None:
    """What `graph_costs` gives; None, and a warning that says why, where that cannot be counted."""
    try:
        return graph_costs(model)
    except (MissingLibraryError, ModelError) as error:
        _log.warning('GMAC of %s are not counted: %s', model.name, error)
        return None


def report_left_out(refusals: Sequence[PrecisionError], is_any_left: bool) -> None:
    """Says what is left out of a comparison, as its engine does not compute in its precision.

    Raises:
        PrecisionError: nothing is left.
    """
    if refusals and not is_any_left:
        raise refusals[0]
    for reason in dict.fromkeys(map(str, refusals)):  # once, however many models it is true of
        _log.warning('left out: %s', reason)
