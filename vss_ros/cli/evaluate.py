"""Score models on labelled data: how far masks can be trusted at every distance from a key frame.

DATA is a folder of CamVid (SegNet layout, images/ and labels/, or decoded video with the label images in
colour) or Cityscapes, which is recognised, or anything `vss run` takes that knows the truth: a folder of
images with --labels, a bag with --mask-topic or with --labels FOLDER of PNGs named by stamp, or
synthetic:SEEDxFRAMES. Several sources may be given. Other data sets: --layout FILE.yaml, see
config/datasets/ for examples.

With --stills a camera is driven into labelled stills, as in training; of them those are taken that training
kept aside. Where nothing is labelled, --against MODEL takes that model's own masks, every frame computed in
full, for the truth: against itself, a model shows what it loses by propagating, on any recording.

Three protocols. distance: the key frame lies d frames before the labelled frame, those up to it are
propagated one by one. deployment: a key frame every N frames over the whole clip, every labelled frame
scored. schedules (only if named): the same for several intervals, and for key frames where they are needed.

    vss evaluate data/CamVid --model camvid-evss-lite --warp-only --per-frame -o report
    vss evaluate synthetic:1x60 synthetic:2x60 --model camvid-evss-lite --model my-model
    vss evaluate data/CamVid --engine onnxruntime --engine openvino --precision fp32 --precision int8
    vss evaluate drive.mcap --mask-topic /truth --model camvid-evss-lite --distances 0 5 9
    vss evaluate --stills camvid/train --model camvid-evss-lite --warp-only
    vss evaluate drive.mp4 --model camvid-evss-lite --against camvid-evss-lite

With -o a folder appears: report.html with plots and pictures, report.json, and the plots as PNG. What each
figure means is said there, and in docs/evaluation.md.
"""

from __future__ import annotations

import json
import operator
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from vss_ros.cli.evaluate_data import add_data_arguments, data_for, file_states, named_data
from vss_ros.cli.frame_progress import FrameProgress
from vss_ros.cli.options import (
    REGIONS,
    add_engine_arguments,
    add_settings,
    engines_settings,
    given,
)
from vss_ros.core.command_line import command_line
from vss_ros.core.files.paths import user_path
from vss_ros.core.files.share import DEFAULT_MODEL
from vss_ros.core.settings import StreamSettings

if TYPE_CHECKING:
    from vss_ros.core.frame import Frame
    from vss_ros.evaluation.data import DataSet
    from vss_ros.evaluation.filmstrip import Sample
    from vss_ros.evaluation.protocols import ScoringProtocol
    from vss_ros.evaluation.subjects import Subject

PROTOCOLS = ('distance', 'deployment')  # those that run if none is named
SCHEDULES = 'schedules'
INTERVALS, THRESHOLDS = (2, 3, 5, 8, 12), (0.9, 0.92, 0.93, 0.94, 0.95)
DISTANCES = (0, 1, 3, 5, 9)
OF_STREAMS = ('correction_interval', 'motion', *REGIONS)  # settings that all protocols share
REPORT, PAGE, PROGRESS = 'report.json', 'report.html', 'progress.npz'


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        '--model', action='append', metavar='NAME', help=f'may be repeated (default: {DEFAULT_MODEL})'
    )
    parser.add_argument(
        '--warp-only', action='store_true', help='beside each model, the same without its correction'
    )
    parser.add_argument(
        '--per-frame', action='store_true', help='beside each model, the same with every frame in full'
    )
    parser.add_argument(
        '--protocol',
        action='append',
        choices=(*PROTOCOLS, SCHEDULES),
        help=f'may be repeated (default: {" and ".join(PROTOCOLS)})',
    )
    parser.add_argument(
        '--distances',
        type=int,
        nargs='+',
        default=list(DISTANCES),
        metavar='D',
        help='from the key frame, in frames (default: 0 1 3 5 9)',
    )
    parser.add_argument(
        '--key-frame-interval',
        type=int,
        default=StreamSettings.key_frame_interval,
        metavar='N',
        help='of the deployment protocol (default: %(default)s)',
    )
    parser.add_argument(
        '--intervals',
        type=int,
        nargs='*',
        default=list(INTERVALS),
        metavar='N',
        help=f'of the protocol {SCHEDULES}: fixed schedules (default: {" ".join(map(str, INTERVALS))})',
    )
    parser.add_argument(
        '--thresholds',
        type=float,
        nargs='*',
        default=list(THRESHOLDS),
        metavar='P',
        help=f'of the protocol {SCHEDULES}: adaptive schedules (default: {" ".join(map(str, THRESHOLDS))})',
    )
    parser.add_argument(
        '--background-delay-frames',
        type=int,
        default=0,
        metavar='N',
        help='of the deployment protocol: key frames are computed in the background and take effect N frames '
        'later; 0: in the foreground (default)',
    )
    add_settings(parser, StreamSettings, OF_STREAMS)
    parser.add_argument('-o', '--output', type=user_path, metavar='FOLDER', help='write the report there')
    parser.add_argument('--overwrite', action='store_true', help='replace a report that exists')
    parser.add_argument(
        '--resume', action='store_true', help='go on after the last clip that an interrupted run finished'
    )
    parser.add_argument(
        '--no-plots',
        action='store_true',
        help='write the report without plots (then matplotlib is not needed)',
    )
    add_data_arguments(parser)
    add_engine_arguments(parser, several=True)


def main(args: Namespace) -> int:
    from vss_ros.cli.console_table import make_console, show
    from vss_ros.core.metrics import TruthIds
    from vss_ros.evaluation.evaluate import Checkpoint, evaluate
    from vss_ros.evaluation.report import make_report
    from vss_ros.evaluation.subjects import load_subjects
    from vss_ros.evaluation.tables import score_tables, short_name

    _check_output(args)
    named = named_data(args)
    names = args.model or [DEFAULT_MODEL]
    settings = StreamSettings(
        background_key_frames=args.background_delay_frames > 0, **given(args, OF_STREAMS)
    )
    subjects = load_subjects(names, engines_settings(args), settings, args.warp_only, args.per_frame)
    classes = subjects[0].model.classes
    data, judges = data_for(subjects, named, args)
    protocols = _protocols(args, subjects)
    checkpoint = None
    if args.output:
        fingerprint = _fingerprint(args, data, [*subjects, *judges]) | {'files': file_states(named, args)}
        checkpoint = Checkpoint(args.output / PROGRESS, fingerprint, args.resume)
    console = make_console()
    lengths = [operator.length_hint(clip) for clip in data.clips]
    done = sum(lengths[: checkpoint.clips_done]) if checkpoint is not None else 0
    truth_ids = TruthIds(classes)
    with FrameProgress(sum(lengths) if all(lengths) else None, done) as progress:

        def seen(frame: Frame) -> None:
            if frame.truth is not None:
                truth_ids.update(frame.truth)
            progress.advance()

        evaluate(data.clips, protocols, checkpoint, seen)
    truth_ids.tell_strange(data.name)
    report = make_report(data, subjects, protocols, classes, command_line())
    _check_scored(report, args)
    for table in score_tables(report, short_name):
        show(table, console)
    if checkpoint is not None:
        films = [protocol.film.samples() for protocol in protocols if protocol.film is not None]
        _write(args, report, next(filter(None, films), []))
        checkpoint.remove()
        console.print(f'written: {args.output}', soft_wrap=True)
    return 0


def _check_output(args: Namespace) -> None:
    """Finds out before the work, not after it, that the report cannot be written."""
    from vss_ros.core.errors import SettingsError
    from vss_ros.core.files.drafts import check_writable

    if args.output is None:
        if args.resume:
            raise SettingsError('--resume goes on with what lies in the output folder; name it with -o')
        return
    if args.output.exists() and not args.output.is_dir():
        raise SettingsError(f'{args.output} is a file; give a folder for the report')
    if (args.output / REPORT).exists() and not args.overwrite:
        raise SettingsError(f'{args.output} holds a report already; choose another or add --overwrite')
    # Of an interrupted run the progress is there, of a whole one the report; else they are somebody's files.
    if not args.overwrite and not any((args.output / name).exists() for name in (REPORT, PROGRESS)):
        for name in _names():
            if (args.output / name).exists():
                raise SettingsError(
                    f'{args.output / name} is of no report; choose another folder or add --overwrite'
                )
    check_writable(args.output)
    if not args.no_plots:
        import vss_ros.evaluation.plots  # noqa: F401  raises MissingLibraryError


def _names() -> tuple[str, ...]:
    """The files of a report."""
    from vss_ros.evaluation.html import CAPTIONS

    return (REPORT, PAGE, *(f'{name}.png' for name in CAPTIONS))


def _protocols(args: Namespace, subjects: list[Subject]) -> list[ScoringProtocol]:
    """The protocols that were asked for, each with a film if there will be a page to show it on."""
    from vss_ros.core.errors import SettingsError
    from vss_ros.evaluation.deployment import DeploymentProtocol
    from vss_ros.evaluation.distance import DistanceProtocol
    from vss_ros.evaluation.filmstrip import Filmstrip

    classes = subjects[0].model.classes
    wanted = args.protocol or PROTOCOLS
    if 'distance' in wanted and any('stream' in (args.motion, subject.model.flow) for subject in subjects):
        raise SettingsError(
            'with motion stream the I pictures of a video are key frames, so there is no distance to score '
            'by; use --protocol deployment'
        )
    schedules = {'intervals': INTERVALS, 'thresholds': THRESHOLDS}
    if SCHEDULES not in wanted and any(getattr(args, n) != list(own) for n, own in schedules.items()):
        raise SettingsError(f'--intervals and --thresholds are of the protocol {SCHEDULES}; name it, too')
    protocols: list[ScoringProtocol] = []
    if 'distance' in wanted:
        film = Filmstrip(classes) if args.output else None
        protocols.append(DistanceProtocol(subjects, classes, args.distances, film))
    if 'deployment' in wanted:
        film = Filmstrip(classes) if args.output else None
        delay = args.background_delay_frames
        protocols.append(DeploymentProtocol(subjects, classes, args.key_frame_interval, film, delay))
    if SCHEDULES in wanted:
        from vss_ros.evaluation.schedules import ScheduleProtocol

        fixed = [StreamSettings(interval) for interval in args.intervals]
        adaptive = [StreamSettings(scheduler='adaptive', key_frame_threshold=p) for p in args.thresholds]
        protocols.append(ScheduleProtocol(subjects, classes, fixed + adaptive))
    return protocols


def _fingerprint(args: Namespace, data: DataSet, subjects: list[Subject]) -> dict[str, Any]:
    """Everything that the scores depend on, but for the files to score on."""
    from vss_ros.core.files.share import named_file, version
    from vss_ros.core.model.files import sha256_of
    from vss_ros.core.model.folder import MODEL_FILE
    from vss_ros.evaluation.data import PLAIN
    from vss_ros.evaluation.layouts import FOLDER

    engines = [subject.engine.describe() for subject in subjects]
    is_plain = data.layout == PLAIN
    layout = None if is_plain else named_file(args.layout or data.layout, FOLDER, 'layout')
    paths = [user_path(name) for name in (*args.data, args.labels or '', args.stills or '')]
    return {
        'version': version(),  # it may score otherwise
        'data': [data.name, data.layout, [[clip.name, operator.length_hint(clip)] for clip in data.clips]],
        'paths': [str(path.resolve() if path.exists() else path) for path in paths],
        'layout': sha256_of(layout) if layout else None,
        'source': [args.rate, args.topic, args.mask_topic],
        'stills': [args.clips, args.held_out],
        # The file names the sha256 of all others.
        'subjects': [[subject.name, sha256_of(subject.model.path / MODEL_FILE)] for subject in subjects],
        'engine': [
            [engine[key] for key in ('engine', 'version', 'device', 'precision')] for engine in engines
        ],
        'motion': args.motion,
        'regions': given(args, REGIONS),
        'protocols': list(args.protocol or PROTOCOLS),
        'distances': args.distances,
        'interval': args.key_frame_interval,
        'correction_interval': args.correction_interval,
        'schedules': [args.intervals, args.thresholds],
        'background_delay': args.background_delay_frames,
    }


def _check_scored(report: dict[str, Any], args: Namespace) -> None:
    """Refuses a report without a single score, and says where part of it is missing."""
    import logging

    from vss_ros.core.errors import SourceError
    from vss_ros.evaluation.report import distances_of, scores_of

    scores = scores_of(report)
    log = logging.getLogger(__name__)
    if any(each.get('miou_percent') is not None for each in scores):
        if 'distance' in report['rows'][0] and not distances_of(report):
            log.warning(
                'no labelled frame has %d frames before it, so there are no scores by distance; single '
                'images have none: choose a --split that is video, or --distances 0',
                args.distances[-1],
            )
        if ages := _ages_without_labels(report):
            log.warning(
                'no labelled frame came %s frames after a key frame, so what is said of a key frame every %d '
                'says nothing of these; label other frames, or choose another --key-frame-interval',
                ', '.join(map(str, ages)),
                args.key_frame_interval,
            )
        return
    name = report['data']['name']
    if any(each.get('frames') for each in scores):
        raise SourceError(
            f'{name}: there is nothing to score; no label holds an id of the classes of the model, 0 to '
            f'{len(report["classes"]) - 1} (a --layout of your own can map other ids and colours)'
        )
    how = 'give them by --labels FOLDER or --mask-topic TOPIC; --against MODEL needs none'
    if any(row.get('deployment', {}).get('temporal_consistency_percent') for row in report['rows']):
        log.warning('no frame has labels, so only the consistency in time was measured; %s', how)
        return
    before = f', or none has {args.distances[-1]} frames before it (--distances 0 needs none)'
    reason = 'no frame has labels' + (before if 'distance' in report['rows'][0] else '')
    raise SourceError(f'{name}: there is nothing to score: {reason}; {how}')


def _ages_without_labels(report: dict[str, Any]) -> list[int]:
    """Of the numbers of frames since the key frame those at which nothing was scored."""
    for row in report['rows']:
        found = row.get('deployment', {})
        interval = found.get('key_frame_interval', 1)
        labelled = found.get('all', {}).get('frames', 0)
        if interval > 1 and labelled >= interval and not found['background_delay_frames']:
            return [age for age in range(interval) if str(age) not in found['by_age']]
    return []


def _write(args: Namespace, report: dict[str, Any], samples: list[Sample]) -> None:
    """Writes the report; report.json comes last, for it is what marks a folder as complete."""
    from vss_ros.core.files.drafts import write_file
    from vss_ros.evaluation.html import page

    plots: dict[str, bytes] = {}
    if not args.no_plots:
        from vss_ros.evaluation.plots import draw_all

        plots = draw_all(report)
    for old in _names():  # some may not be made again
        (args.output / old).unlink(missing_ok=True)
    for name, png in plots.items():
        write_file(args.output / f'{name}.png', png)
    write_file(args.output / PAGE, page(report, plots, samples))
    write_file(args.output / REPORT, json.dumps(report, indent=1) + '\n')
