"""Options that several verbs share."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from vss_ros.core.settings import (
    ENGINES,
    MOTIONS,
    OUTPUT_SIZES,
    PRECISIONS,
    PROVIDERS,
    EngineSettings,
    StreamSettings,
)


def add_engine_arguments(parser: ArgumentParser) -> None:
    defaults = EngineSettings()
    group = parser.add_argument_group('engine')
    group.add_argument('--engine', choices=ENGINES, default=defaults.engine)
    group.add_argument('--precision', choices=PRECISIONS, default=defaults.precision)
    group.add_argument('--gpu-id', type=int, default=defaults.gpu_id, metavar='N')
    group.add_argument(
        '--threads', type=int, default=defaults.threads, metavar='N', help='CPU threads; 0: one per core'
    )
    group.add_argument(
        '--provider', choices=PROVIDERS, default=defaults.provider, help='of engine onnxruntime'
    )
    group.add_argument('--spinning', action='store_true', help='let idle threads of ONNX Runtime wait busily')
    group.add_argument(
        '--cuda-graphs', action='store_true', help='record the launches of a graph once and replay them (GPU)'
    )


def engine_settings(args: Namespace, **other: str) -> EngineSettings:
    """The settings of the options of `add_engine_arguments`; `other` ones take their place."""
    names = ('engine', 'precision', 'gpu_id', 'threads', 'provider', 'spinning', 'cuda_graphs')
    return EngineSettings(**{name: getattr(args, name) for name in names} | other)


def add_stream_arguments(parser: ArgumentParser) -> None:
    defaults = StreamSettings()
    group = parser.add_argument_group('stream')
    group.add_argument(
        '--key-frame-interval',
        type=int,
        default=defaults.key_frame_interval,
        metavar='N',
        help='every Nth frame is computed in full; 1: all of them (default: %(default)s)',
    )
    group.add_argument(
        '--motion',
        choices=MOTIONS,
        default=defaults.motion,
        help='where the optical flow comes from; model: from where the model was made for (default)',
    )
    group.add_argument(
        '--background-key-frames',
        action='store_true',
        help='compute key frames on a second thread; until one is there, frames rest on the one before',
    )
    group.add_argument(
        '--background-delay',
        type=int,
        default=defaults.background_delay_frames,
        metavar='N',
        help='frames until such a key frame takes effect; 0: as soon as it is there (default)',
    )
    group.add_argument(
        '--confidence-threshold',
        type=float,
        default=defaults.confidence_threshold,
        metavar='P',
        help='pixels below this confidence, 0 to 1, become 255 in the mask (default: %(default)s)',
    )
    group.add_argument(
        '--output-size', choices=OUTPUT_SIZES, default=defaults.output_size, help='size of the masks'
    )
    group.add_argument(
        '--max-frame-gap',
        type=float,
        default=defaults.max_frame_gap_s,
        metavar='SECONDS',
        help='a longer gap between two frames starts a new stream (default: %(default)s)',
    )


def stream_settings(args: Namespace) -> StreamSettings:
    return StreamSettings(
        key_frame_interval=args.key_frame_interval,
        max_frame_gap_s=args.max_frame_gap,
        confidence_threshold=args.confidence_threshold,
        output_size=args.output_size,
        motion=args.motion,
        background_key_frames=args.background_key_frames,
        background_delay_frames=args.background_delay,
    )


def add_source_arguments(parser: ArgumentParser) -> None:
    group = parser.add_argument_group('source')
    group.add_argument('--rate', type=float, metavar='HZ', help='of a folder of images (default: 15)')
    group.add_argument('--labels', type=Path, metavar='FOLDER', help='label PNGs for a folder of images')
    group.add_argument('--topic', help='image topic of a bag; needed if it has several')
    group.add_argument('--mask-topic', metavar='TOPIC', help='topic of the true masks in a bag')
