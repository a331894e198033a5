"""Fit a trained model to what it meets: what it expects of itself, how sure it is, how much it corrects.

Where propagating fails, for `scheduler: adaptive`: the model runs over recordings like those it will see,
propagating and computing every frame in full; no labels are needed. From what a stream knows of a frame
before it is propagated (how far things moved, how much of it the flow explains, how much had to be corrected)
it is fitted how much of the mask will be right. The weights are kept in model.yaml. Without them rougher ones
serve all models. It takes 30 frames or more beside the key frames.

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
the model's own mask of the frame computed in full. It takes 20 frames or more beside the key frames. A
new model is written. Do this before the other two.

    vss calibrate models/mine drive.mp4 --stills camvid/train --correction -o models/mine-corrected

--stills: labelled stills (a folder with images/ and labels/) that a camera is driven into, as in training.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import replace

from vss_ros.cli.options import (
    add_engine_arguments,
    add_layout_arguments,
    add_source_arguments,
    engine_settings,
)
from vss_ros.cli.stills import add_stills_arguments, check_stills_are_named, share_of_stills
from vss_ros.core.errors import SettingsError
from vss_ros.core.files.paths import user_path
from vss_ros.core.settings import EngineSettings, StreamSettings


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
    from vss_ros.cli.calibrate_scheduler import calibrate_scheduler
    from vss_ros.core.model.folder import load_model

    if not args.sources and args.stills is None:
        raise SettingsError('there is nothing to fit to; give recordings, or labelled stills with --stills')
    for name in ('frames', 'span', 'clips'):
        if getattr(args, name) < 2:
            raise SettingsError(f'{name} is {getattr(args, name)}; use 2 or more')
    _check_what(args)
    model = load_model(args.model)
    if args.confidence or args.correction:
        from vss_ros.calibration.enough import LEAST_CORRECTED
        from vss_ros.cli.calibrate_clips import numbered_clips
        from vss_ros.cli.calibrate_confidence import fit_confidence
        from vss_ros.cli.calibrate_correction import fit_correction
        from vss_ros.cli.calibrate_graphs import calibrate_graphs

        if args.confidence:
            clips = numbered_clips(args, model, needs_labels=True)
            calibrate_graphs(args, model, 'confidence', fit_confidence, clips)
        else:  # drives that go both ways, for in each the one or the other, carried or fresh, has more detail
            clips = numbered_clips(args, model, LEAST_CORRECTED, backwards=None)
            calibrate_graphs(args, model, 'correction', fit_correction, clips)
        return 0
    calibrate_scheduler(args, model)
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
