"""Options and clips of labelled stills that a camera is driven into."""

from __future__ import annotations

import logging
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from vss_ros.core.errors import SettingsError, torch_needed
from vss_ros.core.files.paths import user_path

if TYPE_CHECKING:
    from pathlib import Path

    from vss_ros.core.model.folder import ModelFolder
    from vss_ros.training.driven_stills import DrivenClip

_log = logging.getLogger(__name__)

HELD_OUT = 0.1  # as in recipes
CLIPS = 24


def add_stills_arguments(parser: ArgumentParser) -> None:
    group = parser.add_argument_group('labelled stills')
    group.add_argument(
        '--stills',
        type=user_path,
        metavar='FOLDER',
        help='images/ and labels/, which a camera is driven into, as in training',
    )
    group.add_argument(
        '--clips', type=int, default=CLIPS, metavar='N', help='drives into the stills (default: %(default)s)'
    )
    group.add_argument(
        '--held-out',
        type=float,
        metavar='SHARE',
        help='where labels count, take the last share of every drive of the stills only, those that training '
        'kept aside (default: 0.1); 1: all',
    )


def check_stills_are_named(args: Namespace) -> None:
    """Raises SettingsError for options of stills without any."""
    if args.stills is None and (args.held_out is not None or args.clips != CLIPS):
        raise SettingsError('--clips and --held-out are of labelled stills; name them with --stills')


def share_of_stills(args: Namespace) -> float:
    """Of every drive of the stills, the last so much is taken where labels count.

    Raises:
        SettingsError: it is no share.
    """
    if args.held_out is None:
        return HELD_OUT
    if not 0 < args.held_out <= 1:
        raise SettingsError(f'held_out is {args.held_out}; use a share above 0, up to 1')
    return args.held_out


def drives(
    args: Namespace, model: ModelFolder, share: float, length: int, backwards: bool | None = False
) -> list[DrivenClip]:
    """Drives into the stills that were named, if any; see `drives_into`."""
    if args.stills is None:
        return []
    with torch_needed():
        from vss_ros.training.driven_stills import drives_into
    return drives_into(args.stills, model, share, args.clips, length, backwards)


def in_words(args: Namespace, share: float) -> str:
    """The drives, for notes and reports."""
    part = 'the' if share == 1 else f'the last {share:g} of the'
    return f'{args.clips} drives into {part} {_called(args.stills)}'


def warn_of_fitted(model: ModelFolder, stills: Path) -> None:
    """Say what of a model was fitted to these stills, as its notes in model.yaml have it; see `in_words`."""
    for what, notes in model.training.items():
        fitted_on = notes.get('fitted_on', ()) if isinstance(notes, dict) else ()
        if any(str(entry).endswith(_called(stills)) for entry in fitted_on):
            _log.warning(
                '%s: its %s was fitted to %s, so these look better here than elsewhere',
                model.name,
                what,
                _called(stills),
            )


def _called(stills: Path) -> str:
    return f'stills of {stills.name}'
