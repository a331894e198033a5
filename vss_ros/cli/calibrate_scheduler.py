"""`vss calibrate`: the weights by which a model expects how well a frame will be propagated."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vss_ros.cli.calibrate_clips import check_enough_is_propagated
from vss_ros.cli.frame_progress import FrameProgress
from vss_ros.cli.options import engine_settings, source_settings
from vss_ros.cli.stills import drives, in_words
from vss_ros.core.errors import ModelError

if TYPE_CHECKING:
    from rich.table import Table

    from vss_ros.calibration.scheduler import Samples
    from vss_ros.core.frame import Frame
    from vss_ros.core.model.folder import ModelFolder
    from vss_ros.core.sources import Source
    from vss_ros.training.driven_stills import DrivenClip


def calibrate_scheduler(args: Namespace, model: ModelFolder) -> None:
    """Fits the weights, shows what they are worth, and puts them into the model's `model.yaml`."""
    from rich.console import Console

    from vss_ros.calibration.enough import LEAST_PROPAGATED
    from vss_ros.calibration.scheduler import collect, cross_validate, fit, quality
    from vss_ros.core.engines import load_engine
    from vss_ros.core.files.drafts import check_writable
    from vss_ros.core.model.folder import find_model

    # Not `model.path`: the graphs of a model that came as weights alone lie elsewhere.
    folder = find_model(args.model)
    if not args.dry_run:
        check_writable(folder)
    driven = drives(args, model, 1.0, args.span)
    with ExitStack() as opened:  # all sources, before the first is read
        sources = [opened.enter_context(_open(spec, args)) for spec in args.sources]
        check_enough_is_propagated(args, sources, driven, LEAST_PROPAGATED)
    engine = load_engine(model, engine_settings(args))
    with FrameProgress() as progress:
        clips = ((number, progress.through(clip)) for number, clip in _clips(args, driven))
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


def _open(spec: str, args: Namespace) -> closing[Source]:
    from vss_ros.core.sources.open import open_source

    return closing(open_source(spec, source_settings(args)))


def _clips(args: Namespace, driven: Iterable[DrivenClip]) -> Iterator[tuple[int, Iterable[Frame]]]:
    """Frames by number of the clip; drives into the same stills have one number."""
    for number, spec in enumerate(args.sources):
        with _open(spec, args) as source:
            yield number, islice(source, args.frames)
    for drive in driven:
        yield len(args.sources) + drive.group, (frame for _, frame in drive.frames())


def _table(samples: Samples, weights: Any) -> Table:
    """What each signal is worth, and how well all of them and age alone predict clips they have not seen."""
    import numpy as np
    from rich.table import Table

    from vss_ros.calibration.scheduler import cross_validate, quality

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
