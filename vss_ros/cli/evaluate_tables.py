"""The tables that `vss evaluate` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vss_ros.evaluation.report import (
    at_distance,
    by_kind,
    corrected_distance,
    distances_of,
    frames_deployed,
    is_corrected,
)

if TYPE_CHECKING:
    from rich.table import Table

DETAILS = {  # heading: key of the scores
    'boundary F': 'boundary_f_percent',
    'ECE': 'ece_percent',
}
CORRECTION = {
    'changed (CL)': 'corrected_labels_percent',
    'mended': 'mended_percent',
    'spoilt': 'spoilt_percent',
    'map AP': 'distortion_ap_percent',
    'by chance': 'warp_errors_percent',
}

CARRIED = '~'

Row = dict[str, Any]


def tables(report: dict[str, Any]) -> Iterator[Table]:
    """What was measured, all values in percent."""
    distances = distances_of(report)
    if distances:
        yield _by_distance(report, distances)
        yield _details(report, distances[-1])
        if (corrected := corrected_distance(report)) is not None:
            yield _corrections(report, corrected)
    if 'deployment' in report['rows'][0]:
        yield _deployment(report)
    if any(row.get('schedules') for row in report['rows']):
        yield _schedules(report)


def _table(title: str, headings: list[str]) -> Table:
    from rich.table import Column, Table

    table = Table(Column(overflow='fold'), title=title, min_width=len(title))  # or the title would break
    for heading in headings:
        table.add_column(heading, justify='right')
    return table


def _by_distance(report: dict[str, Any], distances: list[int]) -> Table:
    frames = max(scores['frames'] for scores in report['rows'][0]['distance'].values())
    table = _table(
        f'mIoU by distance from the key frame, on {frames} labelled, %', [str(d) for d in distances]
    )
    for row in report['rows']:
        values = [_value(at_distance(row, distance), 'miou_percent') for distance in distances]
        marks = ['' if is_corrected(row, distance) else CARRIED for distance in distances]
        table.add_row(_name(row), *map(''.join, zip(values, marks, strict=True)))
        if any(marks):
            table.caption = f'{CARRIED} carried along, not corrected'
    return table


def _details(report: dict[str, Any], distance: int) -> Table:
    groups = list(report['groups'])
    table = _table(f'at distance {distance}, %', [*(f'IoU {name}' for name in groups), *DETAILS])
    for row in report['rows']:
        if scores := at_distance(row, distance):
            grouped = [_value(scores['group_miou_percent'], name) for name in groups]
            table.add_row(_name(row), *grouped, *(_value(scores, key) for key in DETAILS.values()))
    return table


def _corrections(report: dict[str, Any], distance: int) -> Table:
    table = _table(f'the correction at distance {distance}, %', list(CORRECTION))
    for row in report['rows']:
        scores = at_distance(row, distance)
        if scores and scores['mended_percent'] is not None:
            table.add_row(_name(row), *(_value(scores, key) for key in CORRECTION.values()))
    return table


def _deployment(report: dict[str, Any]) -> Table:
    interval = max(row['deployment']['key_frame_interval'] for row in report['rows'])
    table = _table(
        f'a key frame every {interval} frames, on {frames_deployed(report)} labelled, %',
        ['mIoU', 'key', 'prop.', 'TC', 'ECE key', 'ECE prop.', 'GMAC'],
    )
    for row in report['rows']:
        found = row['deployment']
        cost = found['gmac_per_frame']
        table.add_row(
            _name(row),
            *(_value(scores, 'miou_percent') for scores in by_kind(row)),
            _value(found, 'temporal_consistency_percent'),
            *(_value(found.get(kind), 'ece_percent') for kind in ('key', 'propagated')),
            '-' if cost is None else f'{cost:.3f}',
        )
    return table


def _schedules(report: dict[str, Any]) -> Table:
    table = _table('key frames as scheduled', ['schedule', 'key frames %', 'mIoU %', 'GMAC'])
    for row in report['rows']:
        for schedule, found in row.get('schedules', {}).items():
            cost = found['gmac_per_frame']
            table.add_row(
                _name(row),
                schedule,
                _value(found, 'key_share_percent'),
                _value(found, 'miou_percent'),
                '-' if cost is None else f'{cost:.3f}',
            )
    return table


def _name(row: Row) -> str:
    """The model, or under it what was changed."""
    return row['model'] if row['kind'] == 'model' else f'  {row["kind"]}'


def _value(scores: Row | None, key: str) -> str:
    value = None if scores is None else scores[key]
    return '-' if value is None else f'{value:.2f}'
