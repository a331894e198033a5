"""The tables of a report, for whoever draws them: the terminal and the HTML page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from vss_ros.core.model.steps import STEPS
from vss_ros.core.rows import Rows
from vss_ros.evaluation.report import (
    at_distance,
    by_kind,
    corrected_distance,
    distances_of,
    frames_scored,
    furthest,
    has_carried,
    is_between_corrections,
    labelled,
)
from vss_ros.evaluation.subjects import MODEL

CARRIED_MARK = '~'  # behind the score of a distance
DETAILS = {  # heading: key of the scores
    'boundary F': 'boundary_f_percent',
    'ECE': 'ece_percent',
}
CORRECTION = {
    'CL': 'corrected_labels_percent',
    'mended': 'mended_percent',
    'spoilt': 'spoilt_percent',
    'distortion AP': 'distortion_ap_percent',
    'warp errors': 'warp_errors_percent',
}

Report = dict[str, Any]
Row = dict[str, Any]
Naming = Callable[[Row], str]


def full_name(row: Row) -> str:
    return row['name']


def short_name(row: Row) -> str:
    """The model, or under it what was changed."""
    return row['model'] if row['kind'] == MODEL else f'  {row["kind"]}'


def score_tables(report: Report, name: Naming) -> Iterator[Rows]:
    """What was measured, each row called by `name`."""
    if distances := distances_of(report):
        yield _by_distance(report, name, distances)
        yield _details(report, name, distances[-1])
        if (corrected := corrected_distance(report)) is not None:
            yield _corrections(report, name, corrected)
    if 'deployment' in report['rows'][0]:
        yield _deployment(report, name)
    if any(row.get('schedules') for row in report['rows']):
        yield _schedules(report, name)


def model_table(report: Report) -> Rows:
    """What was scored."""
    rows = []
    for row in report['rows']:
        height, width = row['image']
        engine = row['engine']
        corrected = row['correction_interval']
        gmac = dict.fromkeys(STEPS) | (row['gmac'] or {})
        rows.append(
            [
                full_name(row),
                row['method'],
                f'{width}x{height}',
                f'{engine["engine"]} {engine["version"]}, {engine["device"]} {engine["precision"]}',
                row['motion'],
                '-' if corrected is None else str(corrected),
                *(_value(gmac, step, digits=3) for step in STEPS),
            ]
        )
    figures = ('corrected: each', *(f'GMAC {step}' for step in STEPS))
    return Rows('What was scored', ('', 'method', 'image', 'engine', 'flow'), figures, rows)


def class_table(report: Report) -> Rows:
    """IoU of each class at the largest distance, or as deployed where nothing was scored by distance."""
    distances = distances_of(report)
    names = [entry['name'] for entry in report['classes']]
    rows = []
    for row in report['rows']:
        if (scores := furthest(report, row)) is not None:
            rows.append([full_name(row), *(_value(scores['iou_percent'], name) for name in names)])
    where = f'at distance {distances[-1]}' if distances else 'as deployed'
    return Rows(f'IoU (%) of each class, {where}', ('',), names, rows)


def _by_distance(report: Report, name: Naming, distances: list[int]) -> Rows:
    def cell(row: Row, distance: int) -> str:
        mark = CARRIED_MARK if is_between_corrections(row, distance) else ''
        return _value(at_distance(row, distance), 'miou_percent') + mark

    has_mean = sum(distance > 0 for distance in distances) > 1
    rows = [
        [
            name(row),
            *(cell(row, distance) for distance in distances),
            *([_value(row, 'miou_percent_over_distances')] if has_mean else []),
        ]
        for row in report['rows']
    ]
    figures = [*map(str, distances), *(['mean'] if has_mean else [])]
    note = labelled(frames_scored(report, 'distance'))
    if has_mean:
        note += '; mean: of all but distance 0'
    if has_carried(report, distances):
        note += f'; {CARRIED_MARK} carried along, not corrected'
    return Rows('mIoU (%) by distance from the key frame', ('',), figures, rows, note)


def _details(report: Report, name: Naming, distance: int) -> Rows:
    groups = report['groups']
    rows = [
        [
            name(row),
            *(_value(scores['group_miou_percent'], group) for group in groups),
            *(_value(scores, key) for key in DETAILS.values()),
        ]
        for row in report['rows']
        if (scores := at_distance(row, distance)) is not None
    ]
    figures = [*(f'IoU {group}' for group in groups), *DETAILS]
    members = '; '.join(f'{group}: {", ".join(classes)}' for group, classes in groups.items())
    return Rows(f'At distance {distance} (%)', ('',), figures, rows, members)


def _corrections(report: Report, name: Naming, distance: int) -> Rows:
    rows = [
        [name(row), *(_value(scores, key) for key in CORRECTION.values())]
        for row in report['rows']
        if (scores := at_distance(row, distance)) and scores['mended_percent'] is not None
    ]
    return Rows(f'The correction at distance {distance} (%)', ('',), list(CORRECTION), rows)


def _deployment(report: Report, name: Naming) -> Rows:
    rows = []
    for row in report['rows']:
        found = row['deployment']
        rows.append(
            [
                name(row),
                *(_value(scores, 'miou_percent') for scores in by_kind(row)),
                _value(found, 'temporal_consistency_percent'),
                *(_value(found.get(kind), 'ece_percent') for kind in ('key', 'between')),
                _value(found.get('between'), 'corrected_labels_percent'),
                _value(found, 'gmac_per_frame', digits=3),
            ]
        )
    interval = max(row['deployment']['key_frame_interval'] for row in report['rows'])
    # Headings of two lines leave room for names in a terminal of 80 columns; a page shows them in one.
    figures = ('mIoU', 'key', 'betw.', 'TC', 'ECE\nkey', 'ECE\nbetw.', 'CL', 'GMAC')
    note = f'{labelled(frames_scored(report, "deployment"))}; betw.: between key frames; GMAC per frame'
    return Rows(f'Deployed with a key frame every {interval} frames (%)', ('',), figures, rows, note)


def _schedules(report: Report, name: Naming) -> Rows:
    rows = [
        [
            name(row),
            schedule,
            _value(found, 'key_share_percent'),
            _value(found, 'miou_percent'),
            _value(found, 'gmac_per_frame', digits=3),
        ]
        for row in report['rows']
        for schedule, found in row.get('schedules', {}).items()
    ]
    figures = ('key frames %', 'mIoU %', 'GMAC')
    return Rows('Schedules of key frames', ('', 'schedule'), figures, rows, 'GMAC per frame')


def _value(scores: Mapping[str, Any] | None, key: str, digits: int = 2) -> str:
    value = None if scores is None else scores[key]
    return '-' if value is None else f'{value:.{digits}f}'
