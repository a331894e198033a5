"""The clips that `vss calibrate` learns from: recordings, and drives into labelled stills."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from vss_ros.core.errors import SettingsError, SourceError

if TYPE_CHECKING:
    from vss_ros.core.frame import Frame
    from vss_ros.core.model_folder import ModelFolder
    from vss_ros.training.clips import SceneClasses
    from vss_ros.training.data import LabelledImages

FRAME_NS = 66_666_667
STILL_SEED = 4000
HELD_OUT = 0.1  # as in recipes
DRIVERS = 6  # groups of stills; clips of one group are fitted to, or left out, together


def numbered_clips(args: Namespace, model: ModelFolder) -> Iterator[tuple[int, Iterable[Frame]]]:
    """Frames by number of the clip, those of the sources first."""
    from vss_ros.core.classes import load_classes
    from vss_ros.core.sources.open import SourceSettings
    from vss_ros.evaluation.data import open_data

    count = 0
    if args.sources:
        settings = SourceSettings(args.rate, args.labels, args.topic, args.mask_topic)
        data = open_data(args.sources, settings=settings)
        if data.classes is not None and load_classes(data.classes).names != model.classes.names:
            raise SettingsError(
                f'{data.name} is labelled with {data.classes}, {model.name} knows {model.classes.name}; '
                'give clips with the classes of the model'
            )
        for clip in data.clips:
            yield count, (frame for _, frame in islice(clip.frames(None), args.frames))
            count += 1
    if args.stills is not None:
        for number, frames in _drives(args, model):
            yield count + number, frames


def _drives(args: Namespace, model: ModelFolder) -> Iterator[tuple[int, list[Frame]]]:
    """Drives into the stills that training kept aside, each with the number of its group of stills."""
    import numpy as np

    from vss_ros.training.clips import SceneClasses
    from vss_ros.training.data import load_folder

    share = HELD_OUT if args.held_out is None else args.held_out
    _, aside = load_folder(args.stills, *model.image_size, len(model.classes)).split(share)
    if not len(aside):
        raise SourceError(f'{share:g} of each drive in {args.stills} is less than one image; use more')
    scene = SceneClasses.of(model.classes)
    places = np.arange(len(aside))
    groups = [group for group in np.array_split(places, min(DRIVERS, len(aside))) if len(group)]
    for number, group in enumerate(groups):
        part = aside.where([place in group for place in places])
        clips = range(number, args.clips, len(groups))
        yield from ((number, frames) for frames in drive(part, scene, clips, args.span))


def fitted_on(args: Namespace) -> list[str]:
    """The clips in words, for the notes in model.yaml."""
    share = HELD_OUT if args.held_out is None else args.held_out
    stills = (
        args.stills and f'{args.clips} drives into the last {share:g} of the stills of {args.stills.name}'
    )
    return [Path(source).name for source in args.sources] + ([stills] if stills else [])


def drive(
    stills: LabelledImages, scene: SceneClasses, numbers: Iterable[int], length: int
) -> Iterator[list[Frame]]:
    """Labelled clips of drives into stills; each depends on the stills and on its number only."""
    import numpy as np

    from vss_ros.core.frame import Frame
    from vss_ros.training.clips import StillDriver

    driver = StillDriver(stills, scene, recoloured=False)
    for number in numbers:
        clip = driver.clip(np.random.default_rng([STILL_SEED, number]), length)
        yield [
            Frame(image, index * FRAME_NS, truth=truth)
            for index, (image, truth) in enumerate(zip(clip.images, clip.labels, strict=True))
        ]
