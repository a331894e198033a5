"""The clips that `vss calibrate` fits to where labels count: recordings, and drives into labelled stills."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from vss_ros.cli.stills import drives, in_words, share_of_stills
from vss_ros.core.errors import SettingsError

if TYPE_CHECKING:
    from vss_ros.core.frame import Frame
    from vss_ros.core.model.folder import ModelFolder


def numbered_clips(
    args: Namespace, model: ModelFolder, backwards: bool | None = False
) -> Iterator[tuple[int, Iterable[Frame]]]:
    """Frames by number of the clip, those of the sources first.

    Args:
        backwards: which way drives into stills go, see `drives_into`.
    """
    from vss_ros.core.sources.open import SourceSettings
    from vss_ros.evaluation.data import check_classes, open_data

    driven = drives(args, model, share_of_stills(args), args.span, backwards)
    count = 0
    if args.sources:
        settings = SourceSettings(args.rate, args.labels, args.topic, args.mask_topic)
        data = open_data(args.sources, args.layout, args.split, settings)
        check_classes(data, model)
        if data.split and args.split is None:
            raise SettingsError(
                f'{data.name} is one part of a data set; name the part to fit to, such as --split train, and '
                'never the one that the model is judged on'
            )
        for clip in data.clips:
            yield count, (frame for _, frame in islice(clip.frames(None), args.frames))
            count += 1
    for drive in driven:
        yield count + drive.group, (frame for _, frame in drive.frames())


def fitted_on(args: Namespace) -> list[str]:
    """The clips in words, for the notes in model.yaml."""
    stills = [in_words(args, share_of_stills(args))] if args.stills else []
    split = f' {args.split}' if args.split else ''
    return [Path(source).name + split for source in args.sources] + stills
