"""Measure models, engines and intervals side by side on the same frames.

Every combination of the models, engines, precisions and intervals given is a contender; those of an engine
that does not compute in the precision are left out. They take turns of a few frames, so that a machine that
slows down slows all of them. Times are wall time per frame from the camera image to the mask at its size: p50
and p99 by kind of frame and by stage. With a key frame every N frames a frame takes (key + corrected +
carried frames) / N, computed from the p50: of the N - 1 frames between key frames every
--correction-interval-th is corrected, `propagated`. The share is of the key frame's time, which segmenting
every frame in full takes. MB: resident memory that loading and warming up added. Of ceiling: how near a stage
comes to what the processor can do, which a matrix product and long additions show at the start. Where a GPU
works on after the host, the frames run a second time for the stages.

The network's size is that of the model, or --network-size: then the model is exported anew and thrown away
afterwards (needs PyTorch). --size is that of the camera's images. Engine `eager` is PyTorch as one writes it.

With --ros the whole node is measured instead, between a camera and a robot in processes of their own: what
came of the images that were sent, latency by kind of frame, and what of it the node itself takes.

    vss bench camvid-evss-lite --engine onnxruntime --engine torch --json bench.json
    vss bench --network-size 480x360 --network-size 960x720 --size 1920x1080 --markdown bench.md
    vss bench --ros --size 1920x1080 --rate 30
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from itertools import product
from typing import TYPE_CHECKING

from vss_ros.cli import bench_ros
from vss_ros.cli.export import image_size
from vss_ros.cli.options import REGIONS, add_settings, given
from vss_ros.core.described import descriptions
from vss_ros.core.files.paths import real_path, user_path
from vss_ros.core.files.share import DEFAULT_MODEL
from vss_ros.core.settings import ENGINES, EngineSettings, StreamSettings

if TYPE_CHECKING:
    from vss_ros.benchmark.contenders import Contender
    from vss_ros.core.engines import Engine
    from vss_ros.core.frame import Frame
    from vss_ros.core.model.cost import Cost
    from vss_ros.core.model.folder import ModelFolder

EAGER = 'eager'
OF_ENGINES = tuple(name for name in descriptions(EngineSettings) if name != 'engine')
WARM_UP = 3  # frames before the first turn
ONLY_WITH_ROS = ('rate', 'background_key_frames')
ONLY_WITHOUT_ROS = ('source', 'network_size', 'key_frame_threshold')


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        'models', nargs='*', metavar='MODEL', help=f'may be several (default: {DEFAULT_MODEL})'
    )
    parser.set_defaults(takes_more='models')
    parser.add_argument(
        '--engine', action='append', choices=(*ENGINES, EAGER), help='may be repeated (default: auto)'
    )
    add_settings(parser, EngineSettings, OF_ENGINES, repeated=('precision',))
    parser.add_argument(
        '--key-frame-interval',
        action='append',
        type=int,
        metavar='N',
        help='may be repeated (default: 1 and 5)',
    )
    parser.add_argument(
        '--key-frame-threshold',
        action='append',
        type=float,
        default=[],
        metavar='P',
        help='beside the intervals, scheduler adaptive with this threshold; may be repeated',
    )
    add_settings(parser, StreamSettings, ('correction_interval', 'motion', *REGIONS))
    parser.add_argument('--frames', type=int, default=60, metavar='N', help='default: 60')
    parser.add_argument(
        '--network-size',
        action='append',
        type=image_size,
        metavar='WxH',
        help="of the images that the networks take, may be repeated (default: the model's)",
    )
    parser.add_argument(
        '--size', type=image_size, metavar='WxH', help='of the synthetic street (default: 480x360)'
    )
    parser.add_argument('--source', help='frames to use instead of a synthetic street, as for `vss run`')
    parser.add_argument('--json', type=user_path, metavar='FILE', help='write the figures to this file, too')
    parser.add_argument(
        '--markdown', type=user_path, metavar='FILE', help='write the tables to this file, too'
    )
    parser.add_argument('--overwrite', action='store_true', help='replace files that exist')
    bench_ros.add_ros_arguments(parser)


def main(args: Namespace) -> int:
    _check(args)
    if args.ros:
        return bench_ros.main(args)

    from vss_ros.benchmark.ceilings import measured_ceilings
    from vss_ros.benchmark.contenders import measure
    from vss_ros.benchmark.machine import peak_memory
    from vss_ros.benchmark.results import origin, write_results
    from vss_ros.benchmark.tables import all_rows, memory_line
    from vss_ros.cli.console_table import make_console, show

    frames = _read_frames(args)
    with _contenders(args, frames) as contenders:
        on_gpu = any(contender.engine.is_on_gpu for contender in contenders)
        ceilings = measured_ceilings(args.threads, args.gpu_id if on_gpu else None)
        measure(contenders, frames)
        reports = [
            contender.report(ceilings.get('gpu' if contender.engine.is_on_gpu else 'cpu'))
            for contender in contenders
        ]
    height, width = frames[0].size
    peaks = peak_memory(args.gpu_id)
    figures = {
        **origin('vss bench', args.gpu_id),
        'ceilings': {name: asdict(each) for name, each in ceilings.items()},
        'frames': len(frames),
        'image': [height, width],
        **peaks,
        'contenders': reports,
    }
    tables, memory = list(all_rows(reports)), memory_line(peaks)
    write_results(figures, tables, args.json, args.markdown, args.overwrite, memory)
    # After the files: a reader of the tables may have seen enough, as `head` has, which ends us here.
    console = make_console()
    machine = figures['machine']
    console.print(
        f'{len(frames)} frames of {width}x{height} on {machine["processor"]}, {machine["cores"]} cores'
    )
    for each in ceilings.values():
        rates = ', '.join(f'{precision} {gflops:.0f} GFLOP/s' for precision, gflops in each.gflops.items())
        console.print(f'at best: {rates}; {each.gigabytes_per_s:.1f} GB/s ({each.how})')
    for table in tables:
        show(table, console)
    console.print(memory)
    return 0


def _check(args: Namespace) -> None:
    """Refuses what would do nothing, or could not be written in the end."""
    from vss_ros.core.errors import SettingsError
    from vss_ros.core.files.drafts import check_file

    for name in ONLY_WITHOUT_ROS if args.ros else ONLY_WITH_ROS:
        if getattr(args, name):
            word = 'with' if args.ros else 'without'
            raise SettingsError(f'--{name.replace("_", "-")} cannot be used {word} --ros; leave it out')
    if args.ros and EAGER in (args.engine or []):
        raise SettingsError(f'the node has no engine {EAGER}; measure that without --ros')
    if args.provider != 'cpu' and 'onnxruntime' not in (args.engine or []):
        raise SettingsError('--provider is of engine onnxruntime; add --engine onnxruntime, or leave it out')
    args.models = args.models or [DEFAULT_MODEL]
    files = [file for file in (args.json, args.markdown) if file is not None]
    for file in files:
        check_file(file, args.overwrite)
        path, source = file.resolve(), real_path(user_path(args.source or ''))
        if args.source and (path == source or (path.exists() and source in path.parents)):
            raise SettingsError(f'{file} is where the source lies; name another')
    if len(files) == 2 and files[0].resolve() == files[1].resolve():
        raise SettingsError(f'{files[0]} is named twice, with --json and --markdown; name two files')


@contextmanager
def _contenders(args: Namespace, frames: Sequence[Frame]) -> Iterator[list[Contender]]:
    """Every combination, loaded and warmed up, as long as the models that were made for it are there.

    Raises:
        PrecisionError: no engine computes in a precision that was asked for.
        SettingsError: two of them turn out to be the same.
    """
    from vss_ros.benchmark.models import models_of
    from vss_ros.benchmark.tables import contender_name
    from vss_ros.core.errors import PrecisionError
    from vss_ros.evaluation.comparison import check_apart, counted_costs, load_apart, report_left_out

    engines = args.engine or [EngineSettings.engine]
    precisions = args.precision or [EngineSettings.precision]
    contenders: list[Contender] = []
    refusals: list[PrecisionError] = []
    apart, sizes = load_apart(args.models), args.network_size or []
    with models_of([*apart.values()], sizes, precisions) as models:
        names = [name for name in apart for _ in sizes or [None]]
        costs = [counted_costs(model) for model in models]
        measured = zip(names, models, costs, strict=True)
        for (name, model, cost), engine, precision in product(measured, engines, precisions):
            try:
                contenders += _scheduled(name, model, cost, engine, precision, args, frames)
            except PrecisionError as error:
                refusals.append(error)
        kinds = [each.kind for each in contenders]
        check_apart(f'{contender_name(kind)}, interval {kind["key_frame_interval"]}' for kind in kinds)
        report_left_out(refusals, bool(contenders))
        yield contenders


def _scheduled(
    name: str,
    model: ModelFolder,
    costs: Mapping[str, Cost] | None,
    engine_name: str,
    precision: str,
    args: Namespace,
    frames: Sequence[Frame],
) -> Iterator[Contender]:
    """A model, called by this name, on an engine: once for each schedule.

    Raises:
        PrecisionError: the engine does not compute in the precision.
    """
    from vss_ros.benchmark.contenders import Contender, StageEngine
    from vss_ros.benchmark.machine import memory_mb
    from vss_ros.core.model.cost import frame_costs
    from vss_ros.core.model.warm_up import warm_up
    from vss_ros.core.open_segmenter import make_segmenter

    if costs is not None:
        costs = frame_costs(costs, model, StreamSettings(motion=args.motion, **given(args, REGIONS)))
    before_mb = memory_mb()  # the engine's own counts for the first of them
    engine = StageEngine(_load(model, engine_name, precision, args))
    warm_up(model, engine)
    for interval, settings in _schedules(args).items():
        segmenter = make_segmenter(model, engine, settings)
        for frame in frames[:WARM_UP]:
            list(segmenter.answers(frame))
        list(segmenter.flush())
        segmenter.reset('warmed up')
        yield Contender(
            model=name,
            network=model.image_size,
            engine=engine,
            interval=interval,
            correction_interval=model.corrects_every(settings.correction_interval),
            segmenter=segmenter,
            stage_segmenter=make_segmenter(model, engine, settings) if engine.works_on else None,
            memory_mb=memory_mb() - before_mb,
            costs=costs,
            steps=model.steps,
        )
        before_mb = memory_mb()


def _schedules(args: Namespace) -> dict[int | str, StreamSettings]:
    """When frames are key frames: the settings by interval, or by `adaptive` and the threshold."""
    fixed = {interval: StreamSettings(interval) for interval in args.key_frame_interval or [1, 5]}
    adaptive = {
        f'adaptive {p:g}': StreamSettings(scheduler='adaptive', key_frame_threshold=p)
        for p in args.key_frame_threshold
    }
    # Frames that follow each other in the list do follow each other, whatever their stamps say.
    return {
        name: replace(
            settings,
            correction_interval=args.correction_interval,
            max_frame_gap_s=float('inf'),
            motion=args.motion,
            **given(args, REGIONS),
        )
        for name, settings in (fixed | adaptive).items()
    }


def _load(model: ModelFolder, engine: str, precision: str, args: Namespace) -> Engine:
    from vss_ros.core.engines import load_engine

    settings = bench_ros.settings_of(args, 'torch' if engine == EAGER else engine, precision)
    if engine == EAGER:
        from vss_ros.core.errors import torch_needed

        with torch_needed():
            from vss_ros.torch_engine.eager import EagerEngine
        return EagerEngine.load(model, settings)
    return load_engine(model, settings)


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
