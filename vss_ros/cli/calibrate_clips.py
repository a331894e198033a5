"""The clips that `vss calibrate` fits to where labels count: recordings, and drives into labelled stills."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Iterator, Sized
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from vss_ros.cli.options import source_settings
from vss_ros.cli.stills import drives, in_words, share_of_stills
from vss_ros.core.errors import SettingsError

if TYPE_CHECKING:
    from vss_ros.core.frame import Frame
    from vss_ros.core.model.folder import ModelFolder
    from vss_ros.core.sources import Source
    from vss_ros.evaluation.clips import Clip
    from vss_ros.training.driven_stills import DrivenClip


def numbered_clips(
    args: Namespace,
    model: ModelFolder,
    least: int = 0,
    backwards: bool | None = False,
    needs_labels: bool = False,
) -> Iterator[tuple[int, Iterable[Frame]]]:
    """Frames by number of the clip, those of the sources first.

    Args:
        least: propagated frames that are needed.
        backwards: which way drives into stills go, see `drives_into`.
        needs_labels: whether frames without labels are of no use.
    """
    from vss_ros.calibration.enough import check_labelled
    from vss_ros.evaluation.clips import may_be_labelled
    from vss_ros.evaluation.data import check_classes, open_data

    driven = drives(args, model, share_of_stills(args), args.span, backwards)
    clips: list[Clip] = []
    if args.sources:
        settings = source_settings(args)
        data = open_data(args.sources, args.layout, args.split, settings, labelled=needs_labels)
        check_classes(data, model)
        if data.split and args.split is None:
            raise SettingsError(
                f'{data.name} is one part of a data set; name the part to fit to, such as --split train, and '
                'never the one that the model is judged on'
            )
        clips = data.clips
    if needs_labels and not driven and not any(may_be_labelled(clip, args.frames) for clip in clips):
        check_labelled(0)  # before the model has run over all of them
    check_enough_is_propagated(args, clips, driven, least)
    for number, clip in enumerate(clips):
        yield number, (frame for _, frame in islice(clip.frames(None), args.frames))
    for drive in driven:
        yield len(clips) + drive.group, (frame for _, frame in drive.frames())


def check_enough_is_propagated(
    args: Namespace, clips: Iterable[Clip | Source], driven: Iterable[DrivenClip], least: int
) -> None:
    """Raises SourceError where too few frames can be propagated, before any is read.

    What videos say of their length is not relied on: some are longer.
    """
    from vss_ros.calibration.enough import check_enough, most_propagated

    lengths = [min(len(clip), args.frames) if isinstance(clip, Sized) else args.frames for clip in clips]
    check_enough(most_propagated([*lengths, *map(len, driven)], args.span), least)


def fitted_on(args: Namespace) -> list[str]:
    """The clips in words, for the notes in model.yaml."""
    stills = [in_words(args, share_of_stills(args))] if args.stills else []
    split = f' {args.split}' if args.split else ''
    return [Path(source).name + split for source in args.sources] + stills
