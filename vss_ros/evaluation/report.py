"""The report as data: what is written to JSON, and what tables, plots and the HTML page are made of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from vss_ros.core.classes import ClassSet
from vss_ros.core.files.share import version
from vss_ros.core.model.files import sha256_of
from vss_ros.core.model.folder import MODEL_FILE
from vss_ros.evaluation.data import DataSet
from vss_ros.evaluation.deployment import FLOW_SOURCE
from vss_ros.evaluation.measures import BOUNDARY_TOLERANCE, RELIABILITY_BINS
from vss_ros.evaluation.protocols import ScoringProtocol
from vss_ros.evaluation.subjects import PER_FRAME, Subject

FORMAT = 2
RULES = {
    'miou': 'mean over classes of TP / (TP + FP + FN), counted over the whole set; 255 is ignored',
    'distance': 'frames from the key frame to the scored one; all distances are scored on the same frames',
    'mean over distances': 'mean mIoU over all scored distances but 0 (DAVSS takes 1 to 9)',
    'delay_frames': 'frames after the scored one that the model sees first; at the end of a clip the last '
    'frame stands for them',
    'gmac': '10^9 multiply-adds of convolutions and matrix products, counted from the ONNX graphs; norms, '
    'activations, resizes, warps and optical flow computed on the host are not counted. Per frame: '
    '(key + c * propagated + (l - c) * carried) / (l + 1) at distance l, of whose frames c are corrected',
    'correction_interval': 'of the frames after a key frame each n-th is corrected (step `propagated`), the '
    'others are carried along the flow; so a distance that n does not divide is that of a carried frame. '
    'No value: the row corrects none',
    'between': 'as deployed: all frames between key frames, corrected or carried',
    'temporal_consistency': 'mIoU of each mask with the mask before, warped by nearest sampling, pixels from '
    f'outside left out, mean over clips (EVSS eq. 8); flow: {FLOW_SOURCE}',
    'schedules': 'every labelled frame of whole clips, a key frame at an interval or where the expected '
    'share of right pixels is below the threshold; GMAC of the graphs that ran',
    'ece': f'expected calibration error over {RELIABILITY_BINS} bins of equal width',
    'boundary_f': f'F of boundary pixels met within {BOUNDARY_TOLERANCE:.2%} of the diagonal, mean over '
    'classes',
    'corrected_labels': 'cells of the 1/4 map whose label the correction changed (EVSS eq. 9)',
    'mended, spoilt': 'labelled pixels that the correction made right, made wrong (after DAVSS fig. 3)',
    'distortion_ap': 'average precision of the fine distortion map in finding the pixels where the warp is '
    'wrong; a map that knows nothing scores warp_errors',
}


def make_report(
    data: DataSet,
    subjects: Sequence[Subject],
    protocols: Sequence[ScoringProtocol],
    classes: ClassSet,
    command: str,
) -> dict[str, Any]:
    """Everything that was measured, as JSON takes it: percentages, None where there is no value.

    Args:
        command: that was given to measure it.
    """
    report: dict[str, Any] = {
        'format': FORMAT,
        'version': version(),
        'command': command,
        'date': date.today().isoformat(),
        'data': {
            'name': data.name,
            'layout': data.layout,
            'clips': len(data.clips),
            'truth': data.truth,
        },
        'classes': [
            {'name': name, 'colour': list(colour)}
            for name, colour in zip(classes.names, classes.colours, strict=True)
        ],
        'groups': {name: [classes.names[c] for c in members] for name, members in classes.groups.items()},
        'rules': RULES,
        'rows': [
            {
                'name': subject.name,
                'kind': subject.kind,
                'model': subject.model.name,
                'sha256': sha256_of(subject.model.path / MODEL_FILE),
                'weights_sha256': subject.model.weights_sha256 or None,
                'method': subject.model.method,
                'image': list(subject.model.image_size),
                'delay_frames': subject.model.delay_frames,
                'engine': subject.engine.describe(),
                'motion': subject.model.flow_of(subject.settings.motion),
                'regions': subject.settings.regions,
                'region_overlap': subject.settings.region_overlap,
                'correction_interval': subject.settings.correction_interval if subject.corrects else None,
                'gmac': None if subject.gmacs is None else dict(subject.gmacs),
                **{protocol.name: protocol.report(subject) for protocol in protocols},
            }
            for subject in subjects
        ],
    }
    for row in report['rows']:
        if 'distance' in row:
            row['miou_percent_over_distances'] = _mean_of(row, distances_of(report))
    report['data']['labelled_frames'] = frames_scored(report)
    return report


def distances_of(report: dict[str, Any]) -> list[int]:
    """The distances that were scored, rising; none without the distance protocol or frames for it."""
    found = {
        int(distance)
        for row in report['rows']
        for distance, scores in row.get('distance', {}).items()
        if scores['frames']
    }
    return sorted(found)


def corrected_distance(report: dict[str, Any]) -> int | None:
    """The largest distance at which a row has frames that were corrected, if one has."""
    for distance in reversed(distances_of(report)):
        found = [at_distance(row, distance) for row in report['rows']]
        if any(scores and scores['mended_percent'] is not None for scores in found):
            return distance
    return None


def is_between_corrections(row: dict[str, Any], distance: int) -> bool:
    """Whether a row that corrects frames only carries those at a distance."""
    interval = row['correction_interval']
    return interval is not None and distance % interval > 0


def by_kind(row: dict[str, Any]) -> list[dict[str, Any] | None]:
    """Scores as deployed: of all frames, of key frames and of those between.

    A row that computes every frame in full has no key frames to be compared with those of others: it has the
    score of all.
    """
    found = row['deployment']
    kinds = ('all', 'between') if row['kind'] == PER_FRAME else ('all', 'key', 'between')
    return [found.get(kind) if kind in kinds else None for kind in ('all', 'key', 'between')]


def scores_of(report: dict[str, Any], *protocols: str) -> list[dict[str, Any]]:
    """The scores of all rows, each of all frames that it is of, by these protocols or by any."""
    return [
        each
        for row in report['rows']
        for name, found in (
            ('distance', row.get('distance', {})),
            ('deployment', {'all': row.get('deployment', {}).get('all', {})}),
            ('schedules', row.get('schedules', {})),
        )
        if not protocols or name in protocols
        for each in found.values()
    ]


def frames_scored(report: dict[str, Any], *protocols: str) -> int:
    """How many labelled frames the rows were scored on, by these protocols or by any."""
    return max((each.get('frames', 0) for each in scores_of(report, *protocols)), default=0)


def labelled(frames: int) -> str:
    """A number of labelled frames, in words."""
    return f'{frames} labelled frame{"" if frames == 1 else "s"}'


def at_distance(row: dict[str, Any], distance: int) -> dict[str, Any] | None:
    """Scores of a row at a distance; a row that computes every frame in full has the same at all of them."""
    by_distance = row.get('distance', {})
    if row['kind'] == PER_FRAME or len(by_distance) == 1:
        return next(iter(by_distance.values()), None)
    return by_distance.get(str(distance))


def furthest(report: dict[str, Any], row: dict[str, Any]) -> dict[str, Any] | None:
    """Scores of a row at the largest distance, or as deployed where nothing was scored by distance."""
    if distances := distances_of(report):
        return at_distance(row, distances[-1])
    return row.get('deployment', {}).get('all')


def has_carried(report: dict[str, Any], distances: Sequence[int]) -> bool:
    """Whether a row that corrects frames only carries those at one of the distances."""
    return any(is_between_corrections(row, distance) for row in report['rows'] for distance in distances)


def _mean_of(row: dict[str, Any], distances: list[int]) -> float | None:
    """Mean mIoU over the distances after the key frame, as DAVSS has it."""
    found = [at_distance(row, distance) for distance in distances if distance > 0]
    values = [None if scores is None else scores['miou_percent'] for scores in found]
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 3) if known and len(known) == len(values) else None
