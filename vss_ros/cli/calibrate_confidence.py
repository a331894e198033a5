"""`vss calibrate --confidence`: temperatures that make the confidence of a model mean what it says."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vss_ros.core.errors import MissingLibraryError, SettingsError, SourceError

if TYPE_CHECKING:
    from vss_ros.core.frame import Frame
    from vss_ros.core.model_folder import ModelFolder
    from vss_ros.training.confidence import Samples

HELD_OUT = 0.1  # as in recipes
DRIVERS = 6  # groups of stills; clips of one group are fitted to, or left out, together


def calibrate_confidence(args: Namespace, model: ModelFolder) -> None:
    """Fits the temperatures, says what they are worth on clips left out, and writes the model with them.

    Raises:
        SettingsError, SourceError, ModelError: the model or the data cannot be used; the message says why.
    """
    from rich.console import Console

    if not (args.dry_run or args.output):
        raise SettingsError('temperatures are part of the graphs, which are made anew; name a folder with -o')
    try:
        import torch

        from vss_ros.methods.export import export
        from vss_ros.methods.weights import load_method, stored_dtype
        from vss_ros.training.confidence import collect, fit
    except ModuleNotFoundError as error:
        raise MissingLibraryError(error.name or 'torch', 'train') from error

    if args.threads:
        torch.set_num_threads(args.threads)
    samples = collect(model, _clips(args, model), args.span)
    temperatures = fit(samples)
    console = Console(highlight=False, markup=False)
    console.print(
        f'{len(samples.truth)} labelled pixels of {len(set(samples.clip))} clips or groups of stills'
    )
    table, notes = _judged(samples, model, temperatures)
    console.print(table)
    if args.dry_run:
        return
    made = export(
        load_method(model, {'temperatures': temperatures}),
        args.output,
        name=args.output.resolve().name,
        class_set=model.classes.name,
        image_size=model.image_size,
        training={**model.training, 'confidence': {'fitted_on': _fitted_on(args), **notes}},
        weights_dtype=stored_dtype(model),
        progress=lambda line: print(line, file=sys.stderr, flush=True),
    )
    console.print(f'written: {made.path}', soft_wrap=True)
    if model.expected_accuracy is not None:
        console.print(
            'The weights of the adaptive scheduler rest on the confidence and were left behind; fit them '
            f'anew with: vss calibrate {made.path} RECORDING',
            soft_wrap=True,
        )


def _clips(args: Namespace, model: ModelFolder) -> Iterator[tuple[int, Iterable[Frame]]]:
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

    from vss_ros.cli.calibrate import drive
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


def _fitted_on(args: Namespace) -> list[str]:
    share = HELD_OUT if args.held_out is None else args.held_out
    stills = (
        args.stills and f'{args.clips} drives into the last {share:g} of the stills of {args.stills.name}'
    )
    return [Path(source).name for source in args.sources] + ([stills] if stills else [])


def _judged(samples: Samples, model: ModelFolder, temperatures: list[float]) -> tuple[Any, dict[str, Any]]:
    """A table by age of what the confidence was worth, and is on clips left out; and the same as notes."""
    import numpy as np
    from rich.table import Table

    from vss_ros.training.confidence import by_age, cross_validate, quality

    before = by_age(model.options.get('temperatures', ()), samples.age)
    after = cross_validate(samples)
    table = Table('age', title='confidence before, and after on clips that were not fitted to')
    for column in ('pixels', 'temperature', 'NLL', 'after', 'ECE %', 'after'):
        table.add_column(column, justify='right')

    def row(name: str, which: np.ndarray, temperature: str) -> dict[str, Any]:
        old, new = (quality(samples.of(which), each[which]) for each in (before, after))
        cells = f'{old.nll:.4f}', f'{new.nll:.4f}', f'{old.ece_percent:.2f}', f'{new.ece_percent:.2f}'
        table.add_row(name, str(which.sum()), temperature, *cells)
        return {
            'nll_before': old.nll,
            'nll_after': new.nll,
            'ece_percent_before': old.ece_percent,
            'ece_percent_after': new.ece_percent,
        }

    for age, temperature in enumerate(temperatures):
        if (which := samples.age == age).any():
            row(str(age), which, f'{temperature:.3f}')
    return table, row('all', np.ones(len(samples.age), bool), '')
