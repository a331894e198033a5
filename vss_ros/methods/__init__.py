"""Methods of video semantic segmentation: one paper, one file. A new one is a line in METHODS."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from vss_ros.core.described import KINDS, in_words, is_of
from vss_ros.core.errors import ModelError, SettingsError, VssError, error_text

if TYPE_CHECKING:
    from vss_ros.methods.method import Method


METHODS = {
    'evss': 'vss_ros.methods.evss:Evss',
    'evss-lite': 'vss_ros.methods.evss_lite:EvssLite',
    'davss': 'vss_ros.methods.davss:Davss',
    'twnet': 'vss_ros.methods.twnet:TwNet',
    'st-memory': 'vss_ros.methods.st_memory:StMemory',
    'per-frame': 'vss_ros.methods.per_frame:PerFrame',
    'dff': 'vss_ros.methods.dff:Dff',
    'accel': 'vss_ros.methods.accel:Accel',
    'dvsnet': 'vss_ros.methods.dvsnet:DvsNet',
}


def build_method(name: str, classes: int, options: dict[str, Any] | None = None) -> Method:
    """Build a method with fresh weights.

    Args:
        name: a key of METHODS, as written in model.yaml.
        classes: number of classes K.
        options: see `options_of`; what is left out keeps its default.
    Raises:
        ModelError: no such method, or an option it does not know; the message lists what exists.
        SettingsError: an option has a value that cannot be used.
    """
    method, options = method_class(name), options or {}
    known = options_of(method)
    check_known(f"method '{name}'", options, known)
    for option, value in options.items():
        kind = known[option].annotation  # of another kind, the constructor checks it
        if kind in KINDS and not (type(value) in KINDS and is_of(kind, value)):  # as model.yaml can hold it
            raise SettingsError(f'{option} is {value!r}; use {in_words(kind)}')
    try:
        return method(classes, **options)
    except VssError:
        raise
    except Exception as error:  # a list of something else, or a width below 0, say
        reason = ' '.join(error_text(error).split())
        raise SettingsError(f"options {options} of method '{name}' cannot be used: {reason}") from error


def options_of(method: type[Method]) -> dict[str, inspect.Parameter]:
    """The options of a method: those of its constructor, and if that hands on others, of the next one.

    A constructor hands on others by its `**options`. Its own come first.
    """
    found: dict[str, inspect.Parameter] = {}
    for kind in method.__mro__:
        if (constructor := vars(kind).get('__init__')) is not None:
            own = inspect.signature(constructor, eval_str=True).parameters
            found = {**found, **own, **found}
            if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in own.values()):
                break
    named = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    return {
        name: parameter
        for name, parameter in found.items()
        if name not in ('self', 'classes') and parameter.kind in named
    }


def check_known(what: str, options: Iterable[Any], known: Collection[str]) -> None:
    """Raises ModelError, which lists what there is, unless all of a method's options are known."""
    if unknown := [str(option) for option in options if option not in known]:
        raise ModelError(f'{what} has no option {", ".join(unknown)}; it has {", ".join(known) or "none"}')


def method_class(name: str) -> type[Method]:
    """The class of a method.

    Raises:
        ModelError: no such method; the message lists what exists.
    """
    if name not in METHODS:
        raise ModelError(f"there is no method '{name}'; use one of {', '.join(METHODS)}")
    module, class_name = METHODS[name].split(':')
    return getattr(import_module(module), class_name)
