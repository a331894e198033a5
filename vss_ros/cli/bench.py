"""Measure models, engines and intervals side by side on the same frames.

Every combination of the models, engines, precisions and intervals given is a contender. They take turns
of a few frames, so that a machine that slows down slows all of them. Times are wall time per frame from
the camera image to the mask at its size: p50 and p99 by kind of frame and by stage. With a key frame every N
frames a frame takes (key + (N - 1) * propagated) / N, computed from the p50; the share is of the key frame's
time, which segmenting every frame in full takes. MB: resident memory that loading and warming up added.

With --ros the whole node is measured instead, between a camera and a robot in processes of their own: what
came of the images that were sent, latency by kind of frame, and what of it the node itself takes.

    vss bench camvid-evss-lite --engine onnxruntime --engine torch --json bench.json
    vss bench --ros --size 1920x1080 --rate 30
"""

from __future__ import annotations

import json
import os
import platform
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from vss_ros.cli import bench_ros
from vss_ros.cli.export import image_size
from vss_ros.core.settings import ENGINES, MOTIONS, PRECISIONS, EngineSettings, StreamSettings
from vss_ros.core.share import DEFAULT_MODEL
from vss_ros.core.sinks.timings import TOTAL, TimingSink

if TYPE_CHECKING:
    from rich.table import Table

    from vss_ros.core.frame import Frame
    from vss_ros.core.model_folder import ModelFolder
    from vss_ros.core.segmenter import VideoSegmenter

INTERVALS = (1, 3, 5, 9)  # that averages are given for
TURN = 10  # frames a contender takes before the next one
WARM_UP = 3  # frames before the first turn


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        'models', nargs='*', default=[DEFAULT_MODEL], metavar='MODEL', help=f'default: {DEFAULT_MODEL}'
    )
    parser.add_argument('--engine', action='append', choices=ENGINES, help='may be repeated (default: auto)')
    parser.add_argument(
        '--precision', action='append', choices=PRECISIONS, help='may be repeated (default: fp32)'
    )
    parser.add_argument(
        '--key-frame-interval',
        action='append',
        type=int,
        metavar='N',
        help='may be repeated (default: 1 and 5)',
    )
    parser.add_argument(
        '--motion', choices=MOTIONS, default='model', help='where the optical flow comes from'
    )
    parser.add_argument('--threads', type=int, default=0, metavar='N', help='CPU threads; 0: one per core')
    parser.add_argument('--frames', type=int, default=60, metavar='N', help='default: 60')
    parser.add_argument(
        '--size', type=image_size, metavar='WxH', help='of the synthetic street (default: 480x360)'
    )
    parser.add_argument('--source', help='frames to use instead of a synthetic street, as for `vss run`')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures to this file, too')
    bench_ros.add_ros_arguments(parser)


def main(args: Namespace) -> int:
    from rich.console import Console

    from vss_ros.core.drafts import write_file

    if args.ros:
        return bench_ros.main(args)
    frames = _read_frames(args)
    contenders = _contenders(args, frames)
    measure(contenders, frames)
    machine, (height, width) = _machine(), frames[0].size
    reports = [contender.report() for contender in contenders]
    console = Console(highlight=False)
    console.print(
        f'{len(frames)} frames of {width}x{height} on {machine["processor"]}, {machine["cores"]} cores'
    )
    console.print(_overview(reports))
    if any(report['every'] for report in reports):
        console.print(_average_table(reports))
    for report in reports:
        console.print(_stage_table(report))
    console.print(f'peak memory of the process: {_peak_memory_mb():.0f} MB')
    figures = {
        'machine': machine,
        'frames': len(frames),
        'image': [height, width],
        'peak_memory_mb': _peak_memory_mb(),
        'contenders': reports,
    }
    if args.json is not None:
        write_file(args.json, json.dumps(figures, indent=2) + '\n')
    return 0


@dataclass
class Contender:
    """One combination and what was measured of it.

    Attributes:
        memory_mb: resident memory that loading and warming up added; 0 for a model that was loaded already.
        gmacs: 10^9 multiply-adds of each step; None where onnx is not installed.
    """

    model: str
    engine: dict[str, str]
    interval: int
    segmenter: VideoSegmenter
    timings: TimingSink
    memory_mb: float
    gmacs: dict[str, float] | None

    def report(self) -> dict[str, Any]:
        """The figures as they are written to JSON, times in milliseconds."""
        kinds = [kind for kind in self.timings.ms if self.timings.count(kind)]
        return {
            'model': self.model,
            'engine': self.engine,
            'key_frame_interval': self.interval,
            'ms': {kind: self._stages(kind) for kind in kinds},
            'mean_ms': fmean(ms for kind in kinds for ms in self.timings.ms[kind][TOTAL]),
            'every': self._averages() if 'propagated' in kinds else {},
            'memory_mb': self.memory_mb,
            'gmac': self.gmacs,
        }

    def _stages(self, kind: str) -> dict[str, dict[str, float]]:
        return {
            stage: {f'p{percent}': self.timings.percentile(kind, percent, stage) for percent in (50, 99)}
            for stage in self.timings.ms[kind]
        }

    def _averages(self) -> dict[str, dict[str, float]]:
        key, propagated = self.timings.percentile('key', 50), self.timings.percentile('propagated', 50)
        averages = {n: (key + (n - 1) * propagated) / n for n in INTERVALS}
        return {str(n): {'ms': ms, 'share_of_key': ms / key} for n, ms in averages.items()}


def measure(contenders: Sequence[Contender], frames: Sequence[Frame]) -> None:
    """Lets the contenders take turns until each has segmented all frames."""
    for number, start in enumerate(range(0, len(frames), TURN)):
        first = number % len(contenders)  # nobody is always first
        for contender in [*contenders[first:], *contenders[:first]]:
            for frame in frames[start : start + TURN]:
                for answer in contender.segmenter.answers(frame):
                    contender.timings.write(*answer)


def _contenders(args: Namespace, frames: Sequence[Frame]) -> list[Contender]:
    from vss_ros.core.engines import load_engine
    from vss_ros.core.model_folder import load_model
    from vss_ros.core.segmenter import VideoSegmenter

    contenders = []
    for name, engine_name, precision in product(
        args.models, args.engine or ['auto'], args.precision or ['fp32']
    ):
        before = _memory_mb()
        model = load_model(name)
        engine = load_engine(model, EngineSettings(engine_name, precision, threads=args.threads))
        gmacs = _gmacs(model)
        for interval in args.key_frame_interval or [1, 5]:
            # Frames that follow each other in the list do follow each other, whatever their stamps say.
            settings = StreamSettings(interval, max_frame_gap_s=float('inf'), motion=args.motion)
            segmenter = VideoSegmenter(model, engine, settings)
            for frame in frames[:WARM_UP]:
                list(segmenter.answers(frame))
            list(segmenter.flush())
            segmenter.reset('warmed up')
            contenders.append(
                Contender(
                    model.name,
                    engine.describe(),
                    interval,
                    segmenter,
                    TimingSink(),
                    _memory_mb() - before,
                    gmacs,
                )
            )
            before = _memory_mb()
    return contenders


def _read_frames(args: Namespace) -> list[Frame]:
    from itertools import islice

    from vss_ros.core.errors import SettingsError, SourceError
    from vss_ros.core.sources.open import SourceSettings, open_source

    if args.frames < WARM_UP:
        raise SettingsError(f'frames is {args.frames}; use {WARM_UP} or more')
    spec = args.source or f'synthetic:0x{args.frames}'
    with closing(open_source(spec, SourceSettings(size=args.size))) as source:
        frames = list(islice(source, args.frames))
    if not frames:
        raise SourceError(f'{spec} gave no frames')
    return frames


def _gmacs(model: ModelFolder) -> dict[str, float] | None:
    from vss_ros.core.cost import step_macs
    from vss_ros.core.errors import MissingLibraryError

    try:
        return {step: macs / 1e9 for step, macs in step_macs(model).items()}
    except MissingLibraryError:
        return None


def _machine() -> dict[str, Any]:
    return {
        'processor': _processor(),
        'cores': os.cpu_count(),
        'system': platform.platform(),
        'python': platform.python_version(),
    }


def _processor() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(':')[2].strip() for line in lines if line.startswith('model name'))
    return next(names, platform.processor())


def _memory_mb() -> float:
    """Resident memory of this process now; 0 where the system does not say."""
    try:
        pages = int(Path('/proc/self/statm').read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf('SC_PAGE_SIZE') / 1e6


def _peak_memory_mb() -> float:
    """The most resident memory this process ever had."""
    import resource

    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _overview(reports: list[dict[str, Any]]) -> Table:
    """What was measured of each contender as a whole."""
    from rich.table import Table

    table = Table('model, engine', 'interval', title='ms per frame, p50 / p99')
    for heading in ('key', 'propagated', 'mean', 'MB'):
        table.add_column(heading, justify='right')
    for report in reports:
        totals = [report['ms'].get(kind, {}).get(TOTAL) for kind in ('key', 'propagated')]
        table.add_row(
            _name(report),
            str(report['key_frame_interval']),
            *(f'{total["p50"]:.1f} / {total["p99"]:.1f}' if total else '-' for total in totals),
            f'{report["mean_ms"]:.1f}',
            f'{report["memory_mb"]:.0f}',
        )
    return table


def _average_table(reports: list[dict[str, Any]]) -> Table:
    """What a frame costs at each interval, for the contenders that propagate."""
    from rich.table import Table

    table = Table('model, engine', title='ms per frame with a key frame every N; share of full; GMAC')
    for heading in (*(f'N = {n}' for n in INTERVALS), 'GMAC key', 'prop.'):
        table.add_column(heading, justify='right')
    for report in reports:
        gmac = report['gmac'] or {}
        if report['every']:
            table.add_row(
                _name(report),
                *(f'{every["ms"]:.1f}\n{every["share_of_key"]:.0%}' for every in report['every'].values()),
                *(f'{gmac[step]:.3f}' if step in gmac else '-' for step in ('key', 'propagated')),
            )
    return table


def _stage_table(report: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table('stage', title=f'ms by stage: {_name(report)}, interval {report["key_frame_interval"]}')
    stages: list[str] = []
    for kind, times in report['ms'].items():
        table.add_column(f'{kind} p50', justify='right')
        table.add_column('p99', justify='right')
        stages += [stage for stage in times if stage not in stages]
    for stage in sorted(stages, key=lambda stage: stage == TOTAL):  # the total last
        cells = [stage]
        for times in report['ms'].values():
            time = times.get(stage)
            cells += [f'{time["p50"]:.2f}', f'{time["p99"]:.2f}'] if time else ['-', '-']
        table.add_row(*cells)
    return table


def _name(report: dict[str, Any]) -> str:
    engine = report['engine']
    return f'{report["model"]}, {engine["engine"]} {engine["device"]} {engine["precision"]}'
