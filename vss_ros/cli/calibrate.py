"""Fit a trained model to what it meets: what it expects of itself, how sure it is, how much it corrects.

Where propagating fails, for `scheduler: adaptive`: the model runs over recordings like those it will see,
propagating and computing every frame in full; no labels are needed. From what a stream knows of a frame
before it is propagated (how far things moved, how much of it the flow explains, how much had to be corrected)
it is fitted how much of the mask will be right. The weights are kept in model.yaml. Without them rougher ones
serve all models.

    vss calibrate camvid-evss-lite drive1.mp4 drive2.mp4
    vss calibrate models/mine recording/ --stills camvid/train

With --confidence, the scores are divided by a temperature before they become a confidence, so that of the
pixels with a confidence of 80 % some 80 % are right. There is one for key frames and one for each number of
frames since, fitted to clips with labels: those that `vss evaluate` reads, or labelled stills. They are part
of the graphs, so a new model is written; its masks are the same.

    vss calibrate camvid-evss-lite --confidence --stills camvid/train -o models/mine-calibrated
    vss calibrate models/mine drive/rgb --labels drive/masks --confidence -o models/mine-calibrated

With --correction, it is fitted how far the correction of EVSS is let through (`edge_offsets`), by frames
since the key frame, so that what is corrected agrees best with the labels, or, on frames without any, with
the model's own mask of the frame computed in full. A new model is written. Do this before the other two.

    vss calibrate models/mine drive.mp4 --stills camvid/train --correction -o models/mine-corrected

--stills: labelled stills (a folder with images/ and labels/) that a camera is driven into, as in training.
"""

from __future__ import annotations

import re
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vss_ros.cli.frame_progress import FrameProgress
from vss_ros.cli.options import (
    add_engine_arguments,
    add_layout_arguments,
    add_source_arguments,
    engine_settings,
)
from vss_ros.cli.stills import add_stills_arguments, check_stills_are_named, drives, in_words, share_of_stills
from vss_ros.core.errors import ModelError, SettingsError
from vss_ros.core.files.paths import user_path
from vss_ros.core.settings import EngineSettings, StreamSettings

if TYPE_CHECKING:
    from vss_ros.core.frame import Frame
    from vss_ros.core.model.folder import ModelFolder
    from vss_ros.evaluation.calibrate import Samples


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        'model', help='name of a model or its folder; weights of the scheduler are added to its model.yaml'
    )
    parser.add_argument('sources', nargs='*', metavar='SOURCE', help='recordings, as for `vss run`')
    parser.set_defaults(takes_more='sources')
    what = parser.add_mutually_exclusive_group()
    what.add_argument('--confidence', action='store_true', help='calibrate the confidence')
    what.add_argument('--correction', action='store_true', help='fit how far corrections are let through')
    parser.add_argument(
        '-o', '--output', type=user_path, help='folder of the new model, with --confidence or --correction'
    )
    parser.add_argument('--frames', type=int, default=300, metavar='N', help='of each source (default: 300)')
    parser.add_argument(
        '--span',
        type=int,
        default=StreamSettings.max_interval,
        metavar='N',
        help='a key frame every N frames: how far propagation is followed (default: %(default)s)',
    )
    add_stills_arguments(parser)
    parser.add_argument('--dry-run', action='store_true', help='fit and report, but write nothing')
    group = parser.add_argument_group('data set, with --confidence or --correction')
    add_layout_arguments(group)
    add_source_arguments(parser)
    add_engine_arguments(parser)


def main(args: Namespace) -> int:
    from rich.console import Console

    from vss_ros.core.engines import load_engine
    from vss_ros.core.files.drafts import check_writable
    from vss_ros.core.model.folder import find_model, load_model
    from vss_ros.evaluation.calibrate import collect, cross_validate, fit, quality

    if not args.sources and args.stills is None:
        raise SettingsError('there is nothing to fit to; give recordings, or labelled stills with --stills')
    for name in ('frames', 'span', 'clips'):
        if getattr(args, name) < 2:
            raise SettingsError(f'{name} is {getattr(args, name)}; use 2 or more')
    _check_what(args)
    model = load_model(args.model)
    if args.confidence or args.correction:
        from vss_ros.cli.calibrate_confidence import fit_confidence
        from vss_ros.cli.calibrate_correction import fit_correction
        from vss_ros.cli.calibrate_graphs import calibrate_graphs

        if args.confidence:
            calibrate_graphs(args, model, 'confidence', fit_confidence)
        else:  # drives that go both ways, for in each the one or the other, carried or fresh, has more detail
            calibrate_graphs(args, model, 'correction', fit_correction, backwards=None)
        return 0
    # Not `model.path`: the graphs of a model that came as weights alone lie elsewhere.
    folder = find_model(args.model)
    if not args.dry_run:
        check_writable(folder)
    engine = load_engine(model, engine_settings(args))
    with FrameProgress() as progress:
        clips = ((number, progress.through(clip)) for number, clip in _clips(args, model))
        samples = collect(model, engine, clips, args.span)
    found = fit(samples)
    held_out = quality(samples, cross_validate(samples))
    console = Console(highlight=False, markup=False)
    parts = f'{len(set(samples.clip))} clips or groups of stills'
    console.print(f'{len(samples.accuracy)} propagated frames of {parts}')
    console.print(_table(samples, found.weights))
    entry = {
        'bias': round(found.bias, 4),
        'weights': {name: float(f'{weight:.4g}') for name, weight in found.weights.items()},
        'fitted_on': [Path(source).name for source in args.sources]
        + ([in_words(args, 1.0)] if args.stills else []),
        'frames': len(samples.accuracy),
        'held_out': held_out,
    }
    if not args.dry_run:
        file = write_entry(folder, entry)
        console.print(f'written: {file}', soft_wrap=True)
    return 0


def _check_what(args: Namespace) -> None:
    """Raises SettingsError for options that do not go together with what is calibrated."""
    writes_model = args.confidence or args.correction
    given = (args.output, args.held_out, args.layout, args.split)
    if not writes_model and any(value is not None for value in given):
        raise SettingsError(
            '-o, --held-out, --layout and --split go with --confidence or --correction; the scheduler is '
            'calibrated in place, on recordings'
        )
    if writes_model and replace(engine_settings(args), engine='auto', threads=0) != EngineSettings():
        raise SettingsError(
            'confidence and correction are calibrated with PyTorch in fp32 on the CPU; leave the options of '
            'engines out'
        )
    if writes_model and args.engine not in ('auto', 'torch'):
        raise SettingsError('confidence and correction are calibrated with PyTorch; leave --engine out')
    share_of_stills(args)  # or refuse, before the work
    check_stills_are_named(args)


def write_entry(folder: Path, entry: dict[str, Any]) -> Path:
    """Puts the weights into model.yaml, in place of those that are there; the rest stays byte for byte."""
    import yaml

    from vss_ros.core.files.drafts import write_file
    from vss_ros.core.model.accuracy_model import EXPECTED_ACCURACY
    from vss_ros.core.model.folder import MODEL_FILE, load_model

    file = folder / MODEL_FILE
    before = file.read_bytes().decode()
    text = _without(before, EXPECTED_ACCURACY)
    text = text if text.endswith('\n') else text + '\n'
    text += yaml.safe_dump({EXPECTED_ACCURACY: entry}, sort_keys=False, default_flow_style=None, width=100)
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        found = {}
    wanted = {name: value for name, value in yaml.safe_load(before).items() if name != EXPECTED_ACCURACY}
    if repr(found) != repr(wanted | {EXPECTED_ACCURACY: entry}):  # not ==: NaN is not itself
        raise ModelError(
            f'{file} is written in a way that its entry {EXPECTED_ACCURACY} cannot be put in place of; '
            'write one entry a line, without braces around all of them, or --- and ... between them'
        )
    write_file(file, text)
    load_model(folder, graphs=False)
    return file


def _without(text: str, entry: str) -> str:
    """A YAML text without one of its entries; comments and blank lines behind it stay."""
    import yaml

    node = yaml.compose(text, yaml.SafeLoader)
    assert isinstance(node, yaml.MappingNode)  # it was loaded as a model
    starts = [key.start_mark.index for key, _ in node.value] + [len(text)]
    for i in reversed([i for i, (key, _) in enumerate(node.value) if key.value == entry]):
        cut = text[starts[i] : starts[i + 1]]
        behind = re.search(r'(?:^(?:#.*|[ \t\r]*)(?:\n|\Z))*\Z', cut, re.MULTILINE)
        text = text[: starts[i]] + (behind[0] if behind else '') + text[starts[i + 1] :]
    return text


def _clips(args: Namespace, model: ModelFolder) -> Iterator[tuple[int, Iterable[Frame]]]:
    """Frames by number of the clip; drives into the same stills have one number."""
    from vss_ros.core.sources.open import SourceSettings, open_source

    settings = SourceSettings(args.rate, args.labels, args.topic, args.mask_topic)
    for number, spec in enumerate(args.sources):
        with closing(open_source(spec, settings)) as source:
            yield number, islice(source, args.frames)
    for drive in drives(args, model, 1.0, args.span):
        yield len(args.sources) + drive.group, (frame for _, frame in drive.frames())


def _table(samples: Samples, weights: Any) -> Any:
    """What each signal is worth, and how well all of them and age alone predict clips they have not seen."""
    import numpy as np
    from rich.table import Table

    from vss_ros.evaluation.calibrate import cross_validate, quality

    table = Table('predicted from', title='on clips that were not fitted to')
    table.add_column('mean error %', justify='right')
    table.add_column('correlation', justify='right')
    every = np.full(len(samples.accuracy), samples.accuracy.mean())
    rows = {'nothing (the mean)': every, 'age': cross_validate(samples, ['age'])}
    rows[', '.join(weights) or 'no signal'] = cross_validate(samples)
    for name, predicted in rows.items():
        found = quality(samples, predicted)
        table.add_row(name, f'{found["mean_error_percent"]:.2f}', f'{found["correlation"]:.2f}')
    return table
