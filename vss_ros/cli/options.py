"""Options that several verbs share."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace, _ArgumentGroup
from itertools import product
from typing import Any

from vss_ros.core.errors import SettingsError
from vss_ros.core.paths import user_path
from vss_ros.core.settings import (
    ENGINES,
    MOTIONS,
    OUTPUT_SIZES,
    PRECISIONS,
    PROVIDERS,
    REGIONS,
    SCHEDULERS,
    EngineSettings,
    StreamSettings,
)


def add_engine_arguments(parser: ArgumentParser, several: bool = False) -> None:
    """The options of an engine; with `several`, engines and precisions to compare, see `engines_settings`."""
    defaults = EngineSettings()
    group = parser.add_argument_group('engine')
    for name, choices in (('engine', ENGINES), ('precision', PRECISIONS)):
        default = getattr(defaults, name)
        if several:
            again = f'may be repeated (default: {default})'
            group.add_argument(f'--{name}', action='append', choices=choices, help=again)
        else:
            group.add_argument(f'--{name}', choices=choices, default=default)
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


def engines_settings(args: Namespace) -> list[EngineSettings]:
    """The settings of every engine in every precision that was asked for."""
    defaults = EngineSettings()
    engines, precisions = args.engine or [defaults.engine], args.precision or [defaults.precision]
    return [
        engine_settings(args, engine=engine, precision=precision)
        for engine, precision in product(engines, precisions)
    ]


def add_stream_arguments(parser: ArgumentParser) -> None:
    defaults = StreamSettings()
    group = parser.add_argument_group('stream')
    group.add_argument(
        '--key-frame-interval',
        type=int,
        default=defaults.key_frame_interval,
        metavar='N',
        help='scheduler fixed: every Nth frame is computed in full; 1: all of them (default: %(default)s)',
    )
    add_correction_argument(group)
    add_schedule_arguments(group)
    add_region_arguments(group)
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


def add_correction_argument(group: ArgumentParser | _ArgumentGroup) -> None:
    """How often frames between key frames are corrected."""
    group.add_argument(
        '--correction-interval',
        type=int,
        default=StreamSettings.correction_interval,
        metavar='N',
        help='of the frames between key frames every Nth is corrected, the others are only warped; 0: as the '
        'model says (default)',
    )


def add_schedule_arguments(group: ArgumentParser | _ArgumentGroup) -> None:
    """When a frame is computed in full, beside `--key-frame-interval`."""
    defaults = StreamSettings()
    group.add_argument(
        '--scheduler',
        choices=SCHEDULERS,
        default=defaults.scheduler,
        help='key frames at an interval, or where propagating is expected to fail (default: %(default)s)',
    )
    for name, kind, metavar, text in (
        ('key-frame-threshold', float, 'P', 'least expected share of right pixels, 0 to 1'),
        ('min-interval', int, 'N', 'fewest frames from a key frame to the next'),
        ('max-interval', int, 'N', 'most frames from a key frame to the next'),
        ('max-key-share', float, 'P', 'largest share of key frames in --key-share-window frames'),
        ('key-share-window', int, 'N', 'frames in which --max-key-share is kept'),
    ):
        default = getattr(defaults, name.replace('-', '_'))
        text = f'scheduler adaptive: {text} (default: %(default)s)'
        group.add_argument(f'--{name}', type=kind, default=default, metavar=metavar, help=text)


def schedule_settings(args: Namespace) -> dict[str, Any]:
    """Those of StreamSettings that `add_schedule_arguments` asks for.

    Raises:
        SettingsError: a number of frames is larger than any.
    """
    for name in ('min_interval', 'max_interval', 'key_share_window'):
        if getattr(args, name) > sys.maxsize:
            raise SettingsError(f'{name} is {getattr(args, name)}; use {sys.maxsize} at most')
    names = ('scheduler', 'key_frame_threshold', 'min_interval', 'max_interval')
    return {name: getattr(args, name) for name in (*names, 'max_key_share', 'key_share_window')}


def add_region_arguments(group: ArgumentParser | _ArgumentGroup) -> None:
    """Whether images are segmented as a whole or in parts."""
    defaults = StreamSettings()
    group.add_argument(
        '--regions',
        choices=REGIONS,
        default=defaults.regions,
        metavar='CxR',
        help='columns x rows of parts of the image that are segmented and decided on one by one, '
        f'up to {REGIONS[-1]} (default: %(default)s)',
    )
    group.add_argument(
        '--region-overlap',
        type=float,
        default=defaults.region_overlap,
        metavar='P',
        help='how much more a region sees, as a share of what it would be without (default: %(default)s)',
    )


def region_settings(args: Namespace) -> dict[str, Any]:
    """Those of StreamSettings that `add_region_arguments` asks for."""
    return {'regions': args.regions, 'region_overlap': args.region_overlap}


def stream_settings(args: Namespace) -> StreamSettings:
    """The settings of the options of `add_stream_arguments`.

    Raises:
        SettingsError: a value is out of its range, or `--background-delay` is given alone.
    """
    if args.background_delay and not args.background_key_frames:
        raise SettingsError('--background-delay is of --background-key-frames; give that, too')
    return StreamSettings(
        key_frame_interval=args.key_frame_interval,
        correction_interval=args.correction_interval,
        **schedule_settings(args),
        max_frame_gap_s=args.max_frame_gap,
        confidence_threshold=args.confidence_threshold,
        output_size=args.output_size,
        motion=args.motion,
        background_key_frames=args.background_key_frames,
        background_delay_frames=args.background_delay,
        **region_settings(args),
    )


def add_layout_arguments(parser: ArgumentParser | _ArgumentGroup) -> None:
    parser.add_argument('--layout', metavar='NAME', help='or a YAML file; plain: a source as for `vss run`')
    parser.add_argument('--split', help='train, val, test ...')


def add_source_arguments(parser: ArgumentParser) -> None:
    group = parser.add_argument_group('source')
    group.add_argument('--rate', type=float, metavar='HZ', help='of a folder of images (default: 15)')
    group.add_argument('--labels', type=user_path, metavar='FOLDER', help='label PNGs for a folder of images')
    group.add_argument('--topic', help='image topic of a bag; needed if it has several')
    group.add_argument('--mask-topic', metavar='TOPIC', help='topic of the true masks in a bag')
