"""`vss bench --ros`: the whole node, between a camera and a robot that are processes of their own.

One run for each model, engine, precision, interval, image size and rate, one after the other. The camera
sends raw images; the node answers with masks. Latency: from the callback that takes the image to the
published mask. Outside: the same without the stages of the model, so what the node itself costs. End to end:
from sending the image to receiving its mask in a third process.

Late: sent more than half a period late, because the machine was busy. Not received: the callback never saw
the image, either because the middleware lost it on the way (lost) or because a newer one replaced it before.
Dropped: a newer image came while the node was at work.
"""

from __future__ import annotations

import os
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vss_ros.cli.options import engine_settings
from vss_ros.core.files.paths import user_path
from vss_ros.core.rows import Rows
from vss_ros.core.settings import EngineSettings

if TYPE_CHECKING:
    from rich.console import Console

    from vss_ros.core.model.folder import ModelFolder
    from vss_ros.ros.bench_client import Measured

RATES_HZ = (10.0, 30.0, 60.0)
SIZES = ((360, 480), (1080, 1920))
WORDS = ('model, engine', 'image', 'Hz')


@dataclass(frozen=True)
class Run:
    """One run of the node; times and counts come beside it in the report."""

    model: str
    engine: str
    precision: str
    key_frame_interval: int
    background_key_frames: bool
    regions: str
    size: tuple[int, int]  # (height, width)
    rate_hz: float


def add_ros_arguments(parser: ArgumentParser) -> None:
    """The options of `vss bench` that concern the node."""
    group = parser.add_argument_group('node')
    group.add_argument('--ros', action='store_true', help='measure the whole ROS node between processes')
    group.add_argument(
        '--rate',
        action='append',
        type=float,
        metavar='HZ',
        help='with --ros: images per second, may be repeated (default: 10, 30 and 60)',
    )
    group.add_argument(
        '--background-key-frames', action='store_true', help='with --ros: compute them on a second thread'
    )


def settings_of(args: Namespace, engine: str, precision: str) -> EngineSettings:
    """Those of one engine of several; a provider is only for the engine that has some."""
    provider = args.provider if engine == 'onnxruntime' else EngineSettings.provider
    return engine_settings(args, engine=engine, precision=precision, provider=provider)


def main(args: Namespace) -> int:
    from vss_ros.benchmark.results import origin, write_results
    from vss_ros.cli.console_table import make_console, show
    from vss_ros.core.errors import MissingLibraryError, SettingsError

    if find_spec('rclpy') is None:
        raise MissingLibraryError('rclpy', 'ros')
    if args.frames < 1 or not all(0 < rate < float('inf') for rate in args.rate or []):
        raise SettingsError('--frames and --rate must be above 0')
    console = make_console()
    reports = _reports(args, console)
    tables = [counts_table(reports), times_table(reports)]
    figures = {**origin('vss bench --ros', args.gpu_id), 'runs': reports}
    write_results(figures, tables, args.json, args.markdown, args.overwrite)
    for table in tables:
        show(table, console)
    return 0


def _reports(args: Namespace, console: Console) -> list[dict[str, Any]]:
    """What was measured in each run.

    Raises:
        PrecisionError: no engine computes in a precision that was asked for.
        SettingsError: see `load_apart` and `_check_apart`.
    """
    from vss_ros.core.errors import PrecisionError
    from vss_ros.evaluation.comparison import load_apart, report_left_out

    models = load_apart(args.models)
    _check_apart(args, models)
    reports: list[dict[str, Any]] = []
    refusals: dict[tuple[str, str], PrecisionError] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        _prepare(Path(folder), stack)
        for run in _runs(args, models):
            if (run.engine, run.precision) in refusals:
                continue
            with console.status(f'{_name(run)}, {_size(run)} at {run.rate_hz:g} Hz ...'):
                try:
                    reports.append(_measure(run, models[run.model], args, Path(folder)))
                except PrecisionError as error:
                    refusals[run.engine, run.precision] = error
    report_left_out([*refusals.values()], bool(reports))
    return reports


def _prepare(folder: Path, stack: ExitStack) -> None:
    """What the middleware reads when it is loaded, and the children inherit."""
    from vss_ros.ros.fast_dds import use_image_profile
    from vss_ros.ros.isolation import claim_domain

    os.environ['ROS_LOG_DIR'] = str(folder)
    stack.enter_context(closing(claim_domain()))
    use_image_profile(folder)


def _engines(args: Namespace) -> Iterator[tuple[str, str]]:
    """Engines with their precisions, as they were asked for."""
    return product(args.engine or [EngineSettings.engine], args.precision or [EngineSettings.precision])


def _check_apart(args: Namespace, models: Mapping[str, ModelFolder]) -> None:
    """Refuses to measure one engine twice, before the first run.

    Raises:
        SettingsError: two engines that were asked for are the same for a model.
        EngineError: there is none for a model that `auto` could take.
    """
    from vss_ros.evaluation.comparison import check_apart

    is_auto_among_others = len(set(args.engine or [])) > 1

    def name(model: ModelFolder, engine: str, precision: str) -> str:
        settings = settings_of(args, engine, precision)
        if engine == 'auto' and is_auto_among_others:
            engine = _taken_by_auto(model, settings)
        how = [engine, settings.provider, precision] if engine == 'onnxruntime' else [engine, precision]
        return ' '.join(how)

    check_apart(
        f'{called}, {name(model, engine, precision)}'
        for (called, model), (engine, precision) in product(models.items(), _engines(args))
    )


def _taken_by_auto(model: ModelFolder, settings: EngineSettings) -> str:
    from vss_ros.core.engines import load_engine

    with closing(load_engine(model, settings)) as engine:
        return engine.name


def _runs(args: Namespace, models: Iterable[str]) -> Iterator[Run]:
    sizes = [args.size] if args.size is not None else SIZES
    for model, (engine, precision), interval, size, rate_hz in product(
        models,
        _engines(args),
        dict.fromkeys(args.key_frame_interval or [5]),
        sizes,
        dict.fromkeys(args.rate or RATES_HZ),
    ):
        background = args.background_key_frames
        yield Run(model, engine, precision, interval, background, args.regions, size, rate_hz)


def _measure(run: Run, model: ModelFolder, args: Namespace, folder: Path) -> dict[str, Any]:
    """What came of one run.

    Raises:
        PrecisionError: the engine does not compute in the precision.
        VssError: whatever else went wrong, with the last words of the node.
    """
    from vss_ros.core.engines import load_engine
    from vss_ros.core.errors import VssError
    from vss_ros.ros.bench_client import BenchClient
    from vss_ros.ros.node_client import NodeProcess, private_namespace

    settings = settings_of(args, run.engine, run.precision)
    parameters = _parameters(run, model, settings, args)
    log = folder / 'node.log'
    with NodeProcess(private_namespace(), log, parameters) as node, BenchClient(node) as client:
        try:
            client.transition('configure')
        except VssError:
            load_engine(model, settings).close()  # raises what the node met, where that is the engine
            raise
        client.transition('activate')
        measured = client.run(run.size, run.rate_hz, args.frames)
        client.transition('deactivate')
        client.transition('cleanup')
        if code := node.end():
            raise VssError(f'the node ended with code {code}; its last words:\n{node.last_words()}')
    if not measured.masks:
        raise VssError(f'no mask came back; the last words of the node:\n{node.last_words()}')
    stages = {stage for step in model.steps.values() for stage in step}
    return {
        **asdict(run),
        'engine': measured.health['engine'],
        'device': measured.health['engine_device'],
        'threads': int(measured.health['engine_threads']),
        'correction_interval': model.corrects_every(args.correction_interval),
        'motion': model.flow_of(args.motion),
        **measured.report(stages),
        'ros2_benchmark': benchmark_keys(measured),
    }


def _parameters(run: Run, model: ModelFolder, settings: EngineSettings, args: Namespace) -> dict[str, str]:
    """The parameters of the node, as YAML has their values; it has no empty ones."""
    values: dict[str, Any] = {
        **asdict(settings),
        'model': model.path.resolve(),
        'key_frame_interval': run.key_frame_interval,
        'correction_interval': args.correction_interval,
        'background_key_frames': run.background_key_frames,
        'regions': run.regions,
        'region_overlap': args.region_overlap,
        'motion': args.motion,
    }
    if settings.engine_cache:
        values['engine_cache'] = user_path(settings.engine_cache).absolute()
    texts = {
        name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in values.items()
    }
    return {name: text for name, text in texts.items() if text}


def benchmark_keys(measured: Measured) -> dict[str, float]:
    """What `ros2_benchmark` calls it, of what does not depend on when masks arrived, which no one noted."""
    from vss_ros.benchmark.keys import PERFORMANCE, performance

    sent, latencies = measured.camera['sent'], performance(measured.end_to_end_ms, measured.camera['sent'])
    return {name: value for name, value in latencies.items() if name.endswith('_LATENCY')} | {
        f'{PERFORMANCE}NUM_FRAMES_SENT': float(sent),
        f'{PERFORMANCE}NUM_MISSED_FRAMES': float(sent - measured.masks),
    }


def counts_table(reports: list[dict[str, Any]]) -> Rows:
    """What became of the images of each run."""
    rows = []
    for report in reports:
        counts = [report[name] for name in ('sent', 'late', 'not_received', 'lost', 'dropped')]
        counts += [report['bad'] + report['failed'], report['masks']]
        rows.append((*_first_cells(report), *map(str, counts)))
    figures = ('sent', 'late', 'not received', 'lost', 'dropped', 'bad', 'masks')
    return Rows('what came of the images', WORDS, figures, rows)


def times_table(reports: list[dict[str, Any]]) -> Rows:
    """Times by kind of frame; those of a run of which too few masks came back are not known."""
    from vss_ros.core.model.steps import STEPS

    rows = []
    for report in reports:
        of_kind = report['ms']
        most = max(of_kind, key=lambda kind: report['frames'][kind], default=None)  # none: too few masks
        times = [of_kind.get(kind, {}).get('latency') for kind in STEPS]
        times += [of_kind[most]['outside'] if most else None, report['end_to_end_ms']]
        rows.append((*_first_cells(report), *map(_p, times)))
    return Rows('ms per frame, p50 / p99', WORDS, (*STEPS, 'outside', 'end to end'), rows)


def _first_cells(report: dict[str, Any]) -> tuple[str, str, str]:
    run = Run(**{name: report[name] for name in Run.__dataclass_fields__})
    return _name(run), _size(run), f'{run.rate_hz:g}'


def _name(run: Run) -> str:
    background = ', background' if run.background_key_frames else ''
    regions = '' if run.regions == '1x1' else f', {run.regions} regions'
    return f'{run.model}, {run.engine} {run.precision}, N = {run.key_frame_interval}{background}{regions}'


def _size(run: Run) -> str:
    return f'{run.size[1]}x{run.size[0]}'


def _p(times: dict[str, float] | None) -> str:
    return '-' if times is None else f'{times["p50"]:.1f} / {times["p99"]:.1f}'
