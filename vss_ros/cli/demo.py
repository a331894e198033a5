"""Drive through a synthetic street with the live node, and show what it saw.

Starts the real ROS 2 node as a process of its own, configures and activates it, plays a rendered drive into
its camera topic at 15 Hz and collects what it publishes. Needs no network, camera or screen. Writes into the
output folder:

    contact_sheet.png   camera, mask, confidence and distortion from a key frame to the next
    overlay.mp4         the drive with the masks over it
    node.log            what the node said
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from vss_ros.cli.export import image_size
from vss_ros.core.files.paths import user_path
from vss_ros.core.files.share import DEFAULT_MODEL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table

    from vss_ros.core.classes import ClassSet
    from vss_ros.core.frame import Frame
    from vss_ros.core.model.folder import ModelFolder
    from vss_ros.core.sinks.scores import ScoreSink
    from vss_ros.ros.demo_client import DemoClient, Reply

RATE_HZ = 15.0
MAX_SECONDS = 300  # all images are kept in memory
SHEET, VIDEO, NODE_LOG = 'contact_sheet.png', 'overlay.mp4', 'node.log'
MAX_AGES = 10  # rows of the table
LIBRARIES = {'rclpy': 'ros', 'matplotlib': 'plot', 'av': 'video'}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument('--seconds', type=float, default=10.0, help='length of the drive (default: 10)')
    parser.add_argument('--seed', type=int, default=11, help='which street (default: %(default)s)')
    parser.add_argument(
        '--size', type=image_size, default=(360, 480), metavar='WxH', help='of the images (default: 480x360)'
    )
    parser.add_argument(
        '--model', default=DEFAULT_MODEL, help='name of a model or its folder (default: %(default)s)'
    )
    parser.add_argument(
        '--key-frame-interval',
        type=int,
        default=5,
        metavar='N',
        help='every Nth frame is computed in full; 1: all of them (default: %(default)s)',
    )
    parser.add_argument(
        '--output-dir',
        type=user_path,
        default=Path('demo_output'),
        metavar='FOLDER',
        help='default: demo_output',
    )


def main(args: Namespace) -> int:
    from rich.console import Console

    from vss_ros.core.errors import SettingsError
    from vss_ros.core.model.folder import load_model
    from vss_ros.core.settings import StreamSettings

    _check_libraries()
    if not 0 < args.seconds <= MAX_SECONDS:
        raise SettingsError(f'seconds is {args.seconds:g}; use a length above 0 and up to {MAX_SECONDS}')
    StreamSettings(key_frame_interval=args.key_frame_interval)
    model = load_model(args.model)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    console = Console(highlight=False, markup=False)
    replies, health = _drive(args, model, console)
    segmented = [reply for reply in replies if reply.is_complete]
    if not segmented:
        console.print(f'No mask came back. The node says why in {args.output_dir / NODE_LOG}', style='red')
        return 1
    scores = _write_results(segmented, model.classes, args.output_dir, console)
    console.print(_table(replies, segmented, health, scores))
    answered = sum(reply.latency_ms is not None for reply in replies)
    if answered < len(replies) / 2:
        console.print(
            f'The machine was too busy: {answered} of {len(replies)} images were answered, '
            f'{health["dropped"]} dropped for a newer one; see {args.output_dir / NODE_LOG}',
            style='yellow',
            soft_wrap=True,
        )
    for name in (SHEET, VIDEO, NODE_LOG):
        console.print(f'written: {args.output_dir / name}', soft_wrap=True)
    return 0


def _check_libraries() -> None:
    from vss_ros.core.errors import MissingLibraryError

    for library, extra in LIBRARIES.items():
        if find_spec(library) is None:
            raise MissingLibraryError(library, extra)


def _drive(args: Namespace, model: ModelFolder, console: Console) -> tuple[list[Reply], dict[str, str]]:
    """Plays the street to the node; returns what came back and the node's own counts."""
    from vss_ros.ros.fast_dds import use_image_profile

    log_folder = args.output_dir / 'ros_log'
    log_folder.mkdir(exist_ok=True)
    os.environ['ROS_LOG_DIR'] = str(log_folder.resolve())
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    use_image_profile(log_folder)
    # Only now: the middleware reads these when it is loaded.
    from vss_ros.ros.demo_client import DemoClient
    from vss_ros.ros.node_client import NodeProcess, private_namespace

    parameters = {'model': model.path.resolve(), 'key_frame_interval': args.key_frame_interval}
    with ExitStack() as stack:
        node = stack.enter_context(NodeProcess(private_namespace(), args.output_dir / NODE_LOG, parameters))
        client = stack.enter_context(DemoClient(node))
        frames = _render(args, model.classes, console)  # meanwhile the node starts
        with console.status(f'The node loads {model.name} ...'):
            client.transition('configure')
            client.transition('activate')
        _play(client, frames, console)
        health = client.await_health()
        client.transition('deactivate')
        client.transition('cleanup')
        if code := node.end():
            console.print(
                f'The node ended with code {code}; see {args.output_dir / NODE_LOG}', style='yellow'
            )
    return client.replies, health


def _render(args: Namespace, classes: ClassSet, console: Console) -> list[Frame]:
    """The whole drive, so that drawing it does not slow the node down later."""
    from rich.progress import track

    from vss_ros.core.sources.synthetic import SyntheticSource, known_in

    height, width = args.size
    count = max(1, round(args.seconds * RATE_HZ))
    source = SyntheticSource(args.seed, count, height, width, RATE_HZ)
    hidden = not console.is_terminal
    drawn = track(source, f'Drawing {count} frames', count, console=console, transient=True, disable=hidden)
    return list(known_in(classes, drawn))


def _play(client: DemoClient, frames: Sequence[Frame], console: Console) -> None:
    from rich.progress import Progress

    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f'Playing them at {RATE_HZ:.0f} Hz', total=len(frames))
        client.play(frames, RATE_HZ, lambda: progress.advance(task))


def _write_results(
    segmented: Sequence[Reply], classes: ClassSet, folder: Path, console: Console
) -> ScoreSink:
    from vss_ros.cli.contact_sheet import write_contact_sheet
    from vss_ros.core.sinks.open import open_sinks
    from vss_ros.core.sinks.scores import ScoreSink

    scores = ScoreSink(classes)
    with console.status('Writing the video ...'):
        with open_sinks([str(folder / VIDEO)], classes, overwrite=True) as [video]:
            for reply in segmented:
                segmentation = reply.segmentation()
                video.write(reply.frame, segmentation)
                scores.write(reply.frame, segmentation)
        write_contact_sheet(folder / SHEET, segmented, classes)
    return scores


def _table(
    replies: Sequence[Reply], segmented: Sequence[Reply], health: dict[str, str], scores: ScoreSink
) -> Table:
    import numpy as np
    from rich.table import Table

    from vss_ros.cli.contact_sheet import spread

    def milliseconds(values: list[float]) -> str:
        if not values:
            return '-'
        return f'{np.percentile(values, 50):.1f} / {np.percentile(values, 99):.1f} ms'

    def percent(value: float | None) -> str:
        return '-' if value is None else f'{value:.1f} %'

    by_kind: dict[str, list[float]] = {'key': [], 'propagated': [], 'carried': []}
    for reply in segmented:
        by_kind[reply.info['kind']].append(float(reply.info['latency_ms']))
    latencies = [reply.latency_ms for reply in replies if reply.latency_ms is not None]

    height, width = replies[0].frame.size
    title = f'{health["model"]} on {health["engine"]}, {width}x{height} at {RATE_HZ:.0f} Hz'
    table = Table(title=title, show_header=False)
    table.add_column()
    table.add_column(justify='right')
    table.add_row('frames sent', str(len(replies)))
    table.add_row('frames received by the node', health['received'])
    table.add_row('masks received from the node', str(len(latencies)))
    table.add_row('frames dropped for a newer one', health['dropped'])
    table.add_row(' / '.join(by_kind) + ' frames', ' / '.join(str(len(found)) for found in by_kind.values()))
    table.add_section()
    table.add_row('latency p50 / p99, image sent to mask received', milliseconds(latencies))
    for kind, inside in by_kind.items():
        table.add_row(f'  inside the node, {kind} frames', milliseconds(inside))
    table.add_section()
    report = scores.report()
    table.add_row('mIoU against the exact labels', percent(report['miou_percent']))
    for age, miou in spread(list(report['miou_percent_by_age'].items()), MAX_AGES):
        name = {'0': 'key frames', '1': '1 frame after a key frame'}.get(age, f'{age} frames after')
        table.add_row(f'  {name}', percent(miou))
    return table
