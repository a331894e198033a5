"""Options that several verbs share. Those of settings have the settings' names, with dashes."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, _ArgumentGroup
from collections.abc import Iterable
from itertools import product
from typing import TYPE_CHECKING, Any

from vss_ros.core.described import Described, descriptions
from vss_ros.core.errors import SettingsError
from vss_ros.core.files.paths import user_path
from vss_ros.core.settings import EngineSettings, StreamSettings

if TYPE_CHECKING:
    from vss_ros.core.sources.open import SourceSettings

REGIONS = ('regions', 'region_overlap')
METAVARS = {int: 'N', float: 'X', str: 'TEXT'}
MOST_LISTED = 8  # choices that the help writes out


def add_settings(
    parser: ArgumentParser | _ArgumentGroup,
    owner: type[Described],
    names: Iterable[str],
    repeated: tuple[str, ...] = (),
) -> None:
    """An option for each of these settings.

    Args:
        repeated: those that may be given several times; they are None, or a list.
    """
    for name, description in descriptions(owner).items():
        if name not in names:
            continue
        flag, default, text = f'--{name.replace("_", "-")}', getattr(owner, name), description.text
        if isinstance(default, bool):
            parser.add_argument(flag, action='store_true', help=text)
            continue
        options: dict[str, Any] = {'default': default, 'type': type(default), 'help': text}
        if name in repeated:
            options |= {'action': 'append', 'default': None}
            options['help'] += '; may be repeated'
        if description.choices:
            options['choices'] = description.choices
        if len(description.choices) > MOST_LISTED:
            options['help'] += f'; {description.choices[0]} to {description.choices[-1]}'
        if not 0 < len(description.choices) <= MOST_LISTED:
            options['metavar'] = METAVARS[type(default)]
        if default != '':
            options['help'] += f' (default: {default})'
        parser.add_argument(flag, **options)


def given(args: Namespace, names: Iterable[str]) -> dict[str, Any]:
    """The values of these options, by name."""
    return {name: getattr(args, name) for name in names}


def add_engine_arguments(parser: ArgumentParser, several: bool = False) -> None:
    """The options of an engine; with `several`, engines and precisions to compare, see `engines_settings`."""
    repeated = ('engine', 'precision') if several else ()
    add_settings(parser.add_argument_group('engine'), EngineSettings, descriptions(EngineSettings), repeated)


def engine_settings(args: Namespace, **other: str) -> EngineSettings:
    """The settings of the options of `add_engine_arguments`; `other` ones take their place."""
    return EngineSettings(**given(args, descriptions(EngineSettings)) | other)


def engines_settings(args: Namespace) -> list[EngineSettings]:
    """The settings of every engine in every precision that was asked for."""
    engines = args.engine or [EngineSettings.engine]
    precisions = args.precision or [EngineSettings.precision]
    return [
        engine_settings(args, engine=engine, precision=precision)
        for engine, precision in product(engines, precisions)
    ]


def add_stream_arguments(parser: ArgumentParser) -> None:
    add_settings(parser.add_argument_group('stream'), StreamSettings, descriptions(StreamSettings))


def stream_settings(args: Namespace) -> StreamSettings:
    """The settings of the options of `add_stream_arguments`.

    Raises:
        SettingsError: a value is out of its range, or `--background-delay-frames` is given alone.
    """
    if args.background_delay_frames and not args.background_key_frames:
        raise SettingsError('--background-delay-frames is of --background-key-frames; give that, too')
    return StreamSettings(**given(args, descriptions(StreamSettings)))


def add_layout_arguments(parser: ArgumentParser | _ArgumentGroup) -> None:
    parser.add_argument(
        '--layout',
        metavar='NAME',
        help='layout of the data set: a name from config/datasets or a YAML file; `plain` reads a source as '
        '`vss run` does',
    )
    parser.add_argument('--split', help='train, val, test ...')


def add_source_arguments(parser: ArgumentParser) -> None:
    group = parser.add_argument_group('source')
    group.add_argument('--rate', type=float, metavar='HZ', help='of a folder of images (default: 15)')
    group.add_argument('--labels', type=user_path, metavar='FOLDER', help='label PNGs for a folder of images')
    group.add_argument('--topic', help='image topic of a bag; needed if it has several')
    group.add_argument('--mask-topic', metavar='TOPIC', help='topic of the true masks in a bag')


def source_settings(args: Namespace) -> SourceSettings:
    """The settings of the options of `add_source_arguments`."""
    from vss_ros.core.sources.open import SourceSettings

    return SourceSettings(args.rate, args.labels, args.topic, args.mask_topic)
