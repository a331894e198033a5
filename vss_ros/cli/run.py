"""Segment a video, a folder of images, a bag or a synthetic street.

The source is an image, a folder of images (or of images/ and labels/), a video, a bag (rosbag2 folder,
.mcap, .db3 or .bag), or synthetic:SEEDxFRAMES. What an output becomes follows from its name:

    -o out.mp4     overlay video (or .mkv)
    -o masks/      one PNG of class ids per frame, named as its image, by its stamp in a bag, or numbered
    -o out.mcap    bag of mask, confidence and label names, as one file
    -o bag:out     the same as a rosbag2 folder
    -o out.json    scores, if the source knows the truth

An output appears when it is complete; after an error, Ctrl-C or SIGTERM there is none (masks that are
written stay). Of several outputs those that are complete already stay when the next cannot be completed.

    vss run drive.mp4 -o overlay.mp4
    vss run recording/ --topic /camera/image_raw -o masks.mcap --copy-images
    vss run synthetic:7x100 -o scores.json
"""

from __future__ import annotations

import logging
import math
import operator
import re
import sys
import time
from argparse import ArgumentParser, Namespace
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import closing
from itertools import accumulate, islice
from typing import TYPE_CHECKING

from vss_ros.cli.frame_progress import FrameProgress
from vss_ros.cli.options import (
    add_engine_arguments,
    add_source_arguments,
    add_stream_arguments,
    engine_settings,
    source_settings,
    stream_settings,
)
from vss_ros.core.files.share import DEFAULT_MODEL

if TYPE_CHECKING:
    from rich.table import Table

    from vss_ros.core.frame import Frame, Segmentation
    from vss_ros.core.model.folder import ModelFolder
    from vss_ros.core.sinks.scores import ScoreSink

ALPHA = 0.5
LIVE = re.compile(r'\d+|/dev/video\d+|[a-z]+://.*')  # what other programs call a camera
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
    from vss_ros.core.sinks.open import check_apart, is_bag, is_scores, is_video, open_sinks
    from vss_ros.core.sinks.scores import ScoreSink
    from vss_ros.core.sources.open import open_source
    from vss_ros.core.sources.synthetic import SyntheticSource, known_in

    if args.frames is not None and not 1 <= args.frames <= sys.maxsize:
        raise SettingsError(f'frames is {args.frames}; use 1 or more, or leave it out for all')
    if args.alpha is not None and not any(map(is_video, args.output)):
        raise SettingsError('--alpha is for overlay videos; name one with -o, such as -o overlay.mp4')
    if args.copy_images and not any(map(is_bag, args.output)):
        raise SettingsError('--copy-images is for bags; name one with -o, such as -o masks.mcap')
    if LIVE.fullmatch(args.source) and not (args.source.isdigit() and user_path(args.source).exists()):
        raise SettingsError(
            f'{args.source} is no file, and vss run reads files; for a live camera start the node (README, '
            'On a robot)'
        )
    alpha = ALPHA if args.alpha is None else args.alpha
    check_apart(args.output, user_path(args.source), args.labels)
    with (
        closing(open_source(args.source, source_settings(args))) as source,
        open_segmenter(args.model, engine_settings(args), stream_settings(args)) as segmenter,
    ):
        classes = segmenter.model.classes
        engine = segmenter.engine.describe()
        frames: Iterable[Frame] = source if args.frames is None else islice(source, args.frames)
        if isinstance(source, SyntheticSource):
            frames = known_in(classes, frames)
        known = operator.length_hint(source)
        total = min(known, args.frames or known) or args.frames
        tally, scores = _Tally(), ScoreSink(classes)
        start = time.perf_counter()
        with (
            open_sinks(
                args.output, classes, overwrite=args.overwrite, alpha=alpha, images=args.copy_images
            ) as outputs,
            FrameProgress(total) as progress,
        ):
            pipeline.run(progress.through(frames), segmenter, [*outputs, tally, scores])
            if not tally.frames:
                raise SourceError(f'{args.source} gave no frames')
            if args.output and not scores.frames and all(map(is_scores, args.output)):
                raise SourceError(
                    f'{args.source}: no frame has a label, so there are no scores to write; give --labels or '
                    '--mask-topic'
                )
        seconds = time.perf_counter() - start
    _report(args, segmenter.model, engine, tally, scores, seconds)
    return 0


def _report(
    args: Namespace,
    model: ModelFolder,
    engine: dict[str, str],
    tally: _Tally,
    scores: ScoreSink,
    seconds: float,
) -> None:
    """Prints how fast it was, how good where the truth is known, and what was written."""
    from vss_ros.cli.console_table import make_console

    console = make_console()
    console.print(
        f'{tally.frames} frames in {seconds:.1f} s, {tally.frames / seconds:.1f} frames/s with reading and '
        'writing'
    )
    used = ' '.join(engine[key] for key in ('engine', 'precision', 'device'))
    console.print(f'{model.name} on {used}', soft_wrap=True)
    console.print(_timing_table(tally))
    if reason := _why_nothing_was_propagated(args, model, tally):
        console.print(f'every frame was computed in full: {reason}', soft_wrap=True)
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


class _Tally:
    """Counts frames by kind and time, and why streams began; a long run takes no more memory than a short.

    Attributes:
        times: kind of frame -> hundredths of a millisecond -> frames that took so long.
        resets: why a new stream began -> how often.
    """

    def __init__(self) -> None:
        self.frames = 0
        self.times: defaultdict[str, Counter[int]] = defaultdict(Counter)
        self.resets: Counter[str] = Counter()

    def write(self, frame: Frame, segmentation: Segmentation) -> None:
        self.frames += 1
        self.times[segmentation.kind][round(100 * sum(segmentation.timings_ms.values()))] += 1
        if segmentation.reset_reason is not None:
            self.resets[segmentation.reset_reason] += 1

    def percentile_ms(self, kind: str, percent: float) -> float:
        """Milliseconds that this share of the frames of a kind stayed within, as of `numpy.percentile`."""
        counts = self.times[kind]
        values = sorted(counts)
        ends = list(accumulate(counts[value] for value in values))
        place = percent / 100 * (ends[-1] - 1)
        low, high = (values[bisect_right(ends, index)] for index in (math.floor(place), math.ceil(place)))
        return (low + (high - low) * (place % 1)) / 100

    def close(self) -> None:
        """Nothing is held open."""


def _timing_table(tally: _Tally) -> Table:
    from rich.table import Table

    from vss_ros.core.sinks.timings import KINDS

    table = Table('frames')
    for heading in ('count', 'ms p50', 'ms p99'):
        table.add_column(heading, justify='right')
    for kind in KINDS:
        if kind in tally.times:
            p50, p99 = (tally.percentile_ms(kind, percent) for percent in (50, 99))
            table.add_row(kind, str(tally.times[kind].total()), f'{p50:.1f}', f'{p99:.1f}')
    return table


def _why_nothing_was_propagated(args: Namespace, model: ModelFolder, tally: _Tally) -> str | None:
    """The reason, if it is that every frame began a new stream, which no table shows."""
    from vss_ros.core.stream.resets import FIRST_FRAME, GAP

    reasons = {reason: count for reason, count in tally.resets.items() if reason != FIRST_FRAME}
    if not model.propagates or (args.scheduler == 'fixed' and args.key_frame_interval == 1):
        return None  # nor was it wanted
    if not reasons or sum(reasons.values()) < tally.frames - 1:
        return None
    if set(reasons) == {GAP}:
        return (
            f'each came more than {args.max_frame_gap_s:g} s after the one before; raise --max-frame-gap-s '
            'to propagate all the same'
        )
    counted = ', '.join(f'{reason} ({count})' for reason, count in reasons.items())
    return f'each began a new stream: {counted}'


def _score_table(scores: ScoreSink) -> Table:
    from rich.table import Table

    report = scores.report()
    table = Table('age in frames')
    table.add_column('mIoU %', justify='right')
    for age, miou in [*report['miou_percent_by_age'].items(), ('all', report['miou_percent'])]:
        table.add_row(age, '-' if miou is None else f'{miou:.2f}')
    return table
