"""Segment a video, a folder of images, a bag or a synthetic street.

The source is an image, a folder of images (or of images/ and labels/), a video, a bag (rosbag2 folder,
.mcap, .db3 or .bag), or synthetic:SEEDxFRAMES. What an output becomes follows from its name:

    -o out.mp4     overlay video (or .mkv)
    -o masks/      one PNG of class ids per frame
    -o out.mcap    bag of mask, confidence and label names, as one file
    -o bag:out     the same as a rosbag2 folder
    -o out.json    scores, if the source knows the truth

An output appears when it is complete; after an error, Ctrl-C or SIGTERM there is none (masks that are
written stay).

    vss run drive.mp4 -o overlay.mp4
    vss run recording/ --topic /camera/image_raw -o masks.mcap --copy-images
    vss run synthetic:7x100 -o scores.json
"""

from __future__ import annotations

import logging
import operator
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING

from vss_ros.cli.frame_progress import FrameProgress
from vss_ros.cli.options import (
    add_engine_arguments,
    add_source_arguments,
    add_stream_arguments,
    engine_settings,
    stream_settings,
)
from vss_ros.core.files.share import DEFAULT_MODEL

if TYPE_CHECKING:
    from rich.table import Table

    from vss_ros.core.frame import Frame, Segmentation
    from vss_ros.core.model.folder import ModelFolder
    from vss_ros.core.sinks.scores import ScoreSink
    from vss_ros.core.sinks.timings import TimingSink

ALPHA = 0.5
_log = logging.getLogger(__name__)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument('source', help='what to segment')
    parser.add_argument(
        '-o', '--output', action='append', default=[], metavar='NAME', help='may be repeated; see above'
    )
    parser.add_argument(
        '--model', default=DEFAULT_MODEL, help='name of a model or its folder (default: %(default)s)'
    )
    parser.add_argument('--overwrite', action='store_true', help='replace outputs that exist')
    parser.add_argument('--frames', type=int, metavar='N', help='stop after N frames')
    parser.add_argument('--alpha', type=float, help=f'colour of overlay videos, 0 to 1 (default: {ALPHA})')
    parser.add_argument('--copy-images', action='store_true', help='put the images into bags, too')
    add_source_arguments(parser)
    add_stream_arguments(parser)
    add_engine_arguments(parser)


def main(args: Namespace) -> int:
    from vss_ros.core import pipeline
    from vss_ros.core.errors import SettingsError, SourceError
    from vss_ros.core.files.paths import user_path
    from vss_ros.core.open_segmenter import open_segmenter
    from vss_ros.core.sinks.open import check_apart, is_bag, is_video, open_sinks
    from vss_ros.core.sinks.scores import ScoreSink
    from vss_ros.core.sinks.timings import TimingSink
    from vss_ros.core.sources.open import SourceSettings, open_source
    from vss_ros.core.sources.synthetic import SyntheticSource, known_in

    if args.frames is not None and not 1 <= args.frames <= sys.maxsize:
        raise SettingsError(f'frames is {args.frames}; use 1 or more, or leave it out for all')
    if args.alpha is not None and not any(map(is_video, args.output)):
        raise SettingsError('--alpha is for overlay videos; name one with -o, such as -o overlay.mp4')
    if args.copy_images and not any(map(is_bag, args.output)):
        raise SettingsError('--copy-images is for bags; name one with -o, such as -o masks.mcap')
    alpha = ALPHA if args.alpha is None else args.alpha
    check_apart(args.output, user_path(args.source), args.labels)
    settings = SourceSettings(args.rate, args.labels, args.topic, args.mask_topic)
    with (
        closing(open_source(args.source, settings)) as source,
        open_segmenter(args.model, engine_settings(args), stream_settings(args)) as segmenter,
    ):
        classes = segmenter.model.classes
        engine = segmenter.engine.describe()
        frames: Iterable[Frame] = source if args.frames is None else islice(source, args.frames)
        if isinstance(source, SyntheticSource):
            frames = known_in(classes, frames)
        known = operator.length_hint(source)
        total = min(known, args.frames or known) or args.frames
        timings, scores = TimingSink(), ScoreSink(classes)
        start = time.perf_counter()
        with (
            open_sinks(
                args.output, classes, overwrite=args.overwrite, alpha=alpha, images=args.copy_images
            ) as outputs,
            FrameProgress(total) as progress,
        ):
            pipeline.run(frames, segmenter, [*outputs, timings, scores, _ProgressSink(progress)])
            if not any(map(timings.count, timings.ms)):
                raise SourceError(f'{args.source} gave no frames')
        seconds = time.perf_counter() - start
    _report(args, segmenter.model, engine, timings, scores, seconds)
    return 0


def _report(
    args: Namespace,
    model: ModelFolder,
    engine: dict[str, str],
    timings: TimingSink,
    scores: ScoreSink,
    seconds: float,
) -> None:
    """Prints how fast it was, how good where the truth is known, and what was written."""
    from rich.console import Console

    count = sum(map(timings.count, timings.ms))
    console = Console(highlight=False, markup=False)
    console.print(
        f'{count} frames in {seconds:.1f} s, {count / seconds:.1f} frames/s with reading and writing'
    )
    used = ' '.join(engine[key] for key in ('engine', 'precision', 'device'))
    console.print(f'{model.name} on {used}', soft_wrap=True)
    console.print(_timing_table(timings))
    if scores.frames:
        console.print(f'scored on {scores.frames} frames with truth')
        console.print(_score_table(scores))
        scores.truth_ids.tell_strange(args.source)
        if not scores.total.counts.any():
            _log.warning(
                '%s: all ids of its truth are unlabelled or no class of %s; nothing was scored',
                args.source,
                model.classes.name,
            )
    for output in args.output:
        console.print(f'written: {output}', soft_wrap=True)


class _ProgressSink:
    """Moves the progress bar."""

    def __init__(self, progress: FrameProgress) -> None:
        self._progress = progress

    def write(self, frame: Frame, segmentation: Segmentation) -> None:
        self._progress.advance()

    def close(self) -> None:
        """The progress bar ends with the run."""


def _timing_table(timings: TimingSink) -> Table:
    from rich.table import Table

    table = Table('frames')
    for heading in ('count', 'ms p50', 'ms p99'):
        table.add_column(heading, justify='right')
    for kind in timings.ms:
        if count := timings.count(kind):
            p50, p99 = timings.percentile(kind, 50), timings.percentile(kind, 99)
            table.add_row(kind, str(count), f'{p50:.1f}', f'{p99:.1f}')
    return table


def _score_table(scores: ScoreSink) -> Table:
    from rich.table import Table

    report = scores.report()
    table = Table('age in frames')
    table.add_column('mIoU %', justify='right')
    for age, miou in [*report['miou_percent_by_age'].items(), ('all', report['miou_percent'])]:
        table.add_row(age, '-' if miou is None else f'{miou:.2f}')
    return table
