"""What the calibrations that write a new model share: the clips they learn from, and the model."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vss_ros.core.errors import SettingsError, SourceError

if TYPE_CHECKING:
    from rich.console import Console

    from vss_ros.core.frame import Frame
    from vss_ros.core.model_folder import ModelFolder
    from vss_ros.training.clips import SceneClasses
    from vss_ros.training.data import LabelledImages

FRAME_NS = 66_666_667
STILL_SEED = 4000
HELD_OUT = 0.1  # as in recipes
DRIVERS = 6  # groups of stills; clips of one group are fitted to, or left out, together


def check_output(args: Namespace) -> None:
    """Raises SettingsError where a model would be written and nobody said where."""
    if not (args.dry_run or args.output):
        raise SettingsError(
            'what is fitted is part of the graphs, which are made anew; name a folder for the model with -o'
        )


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


def write_model(
    args: Namespace, model: ModelFolder, options: dict[str, Any], notes: dict[str, Any], console: Console
) -> ModelFolder:
    """Exports the model with other options, into the folder that was named.

    Args:
        notes: added to those of its training.
    """
    from vss_ros.methods.export import export
    from vss_ros.methods.weights import load_method, stored_dtype

    made = export(
        load_method(model, options),
        args.output,
        name=args.output.resolve().name,
        class_set=model.classes.name,
        image_size=model.image_size,
        training={**model.training, **notes},
        weights_dtype=stored_dtype(model),
        progress=lambda line: print(line, file=sys.stderr, flush=True),
    )
    console.print(f'written: {made.path}', soft_wrap=True)
    return made
