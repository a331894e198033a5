"""Plots of a report, as PNG."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

import numpy as np

from vss_ros.core.errors import MissingLibraryError
from vss_ros.evaluation.report import at_distance, distances_of, is_between_corrections
from vss_ros.evaluation.subjects import MODEL, PER_FRAME, WARP_ONLY

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ImportError as error:
    raise MissingLibraryError('matplotlib', 'plot', cause=error) from error

COLOURS = (  # one per model
    '#3366cc',
    '#d9731a',
    '#2a9d5c',
    '#9b51b5',
    '#c43b4e',
    '#6f7a86',
    '#1fa7b8',
    '#b08900',
    '#e377b0',
    '#5b3f2a',
)
FEW = 0.01  # percent of the pixels; a bin with fewer says nothing
LINES = {MODEL: '-', WARP_ONLY: '--', PER_FRAME: ':'}
MOST_INSIDE = 6  # entries of a legend
MARKERS = {MODEL: 'o', WARP_ONLY: 's', PER_FRAME: 'D'}
STYLE: dict[Any, Any] = {
    'font.size': 10,
    'axes.grid': True,
    'grid.color': '#dddddd',
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.axisbelow': True,
    'legend.frameon': False,
    'text.parse_math': False,  # a $ in a name is a $
}

HOLLOW = 'hollow: carried, not corrected'

Row = dict[str, Any]
Legend = dict[str, Any]  # name -> what is drawn for it


def draw_all(report: dict[str, Any]) -> dict[str, bytes]:
    """Every plot that the report has figures for: name -> PNG.

    `pda`: accuracy by propagation distance. `cca`: accuracy against computation cost. `reliability`:
    accuracy of pixels by their confidence, of key frames and of those between. `classes`: IoU of each class.
    `schedules`: accuracy against cost of schedules of key frames.
    """
    plots: dict[str, Callable[[dict[str, Any]], Figure | None]] = {
        'pda': draw_pda,
        'cca': draw_cca,
        'reliability': draw_reliability,
        'classes': draw_classes,
        'schedules': draw_schedules,
    }
    drawn = {}
    with matplotlib.rc_context(STYLE):
        for name, draw in plots.items():
            if (figure := draw(report)) is not None:
                buffer = io.BytesIO()
                # No version in the file: the same figures give the same bytes.
                figure.savefig(buffer, dpi=120, bbox_inches='tight', metadata={'Software': None})
                drawn[name] = buffer.getvalue()
    return drawn


def draw_pda(report: dict[str, Any]) -> Figure | None:
    """mIoU over the distance from the key frame, hollow where frames are carried between corrections.

    None without several distances.
    """
    distances = distances_of(report)
    if len(distances) < 2:
        return None
    figure, axes = _figure()
    legend: Legend = {}
    for row, colour in _coloured(report):
        found = [at_distance(row, distance) for distance in distances]
        values = [np.nan if scores is None else _number(scores['miou_percent']) for scores in found]
        marker = '' if row['kind'] == PER_FRAME else MARKERS[row['kind']]
        legend[row['name']] = _line(axes, row, distances, distances, values, colour, marker)
    axes.set(xlabel='frames since the key frame', ylabel='mIoU (%)', xticks=distances)
    _explain(axes, legend, HOLLOW if _has_carried(report, distances) else None)
    return figure


def draw_cca(report: dict[str, Any]) -> Figure | None:
    """mIoU over the mean cost of a frame, a point for each distance; None where costs are not known."""
    distances = distances_of(report)
    if not distances or any(row['gmac'] is None for row in report['rows']):
        return None
    figure, axes = _figure()
    legend: Legend = {}
    for row, colour in _coloured(report):
        points = [(d, scores) for d in distances if (scores := row['distance'].get(str(d))) is not None]
        costs = [scores['gmac_per_frame'] for _, scores in points]
        values = [_number(scores['miou_percent']) for _, scores in points]
        shown = [distance for distance, _ in points]
        legend[row['name']] = _line(axes, row, shown, costs, values, colour, MARKERS[row['kind']])
        if row['kind'] != PER_FRAME:
            _number_points(axes, shown, costs, values)
    axes.set_xlim(left=0)
    axes.set(xlabel='GMAC per frame, mean from the key frame to distance d', ylabel='mIoU (%)')
    _explain(axes, legend, 'numbers: distance d' + (f'\n{HOLLOW}' if _has_carried(report, distances) else ''))
    return figure


def draw_schedules(report: dict[str, Any]) -> Figure | None:
    """mIoU over the mean cost of a frame, a point for each schedule; None where costs are not known."""
    entries = [(row, colour) for row, colour in _coloured(report) if row.get('schedules')]
    if not entries or any(
        each['gmac_per_frame'] is None for row, _ in entries for each in row['schedules'].values()
    ):
        return None
    figure, axes = _figure()
    legend: Legend = {}
    numbers = []
    for scheduler, line, marker, setting in (
        ('fixed', '--', 's', 'key_frame_interval'),
        ('adaptive', '-', 'o', 'key_frame_threshold'),
    ):
        for row, colour in entries:
            found = [each for each in row['schedules'].values() if each['scheduler'] == scheduler]
            if not found:
                continue
            found.sort(key=lambda each: each['gmac_per_frame'])
            costs = [each['gmac_per_frame'] for each in found]
            values = [_number(each['miou_percent']) for each in found]
            [legend[f'{row["name"]}, {scheduler}']] = axes.plot(
                costs, values, line, marker=marker, color=colour, markersize=5
            )
            _number_points(axes, [each[setting] for each in found], costs, values)
            numbers.append(setting.removeprefix('key_frame_'))
    axes.set_xlim(left=0)
    axes.set(xlabel='GMAC per frame', ylabel='mIoU (%)')
    _explain(axes, legend, f'numbers: {", ".join(dict.fromkeys(numbers))}')
    return figure


def draw_reliability(report: dict[str, Any]) -> Figure | None:
    """Share of right pixels over confidence, with the histogram of confidence below."""
    kinds = [
        (title, [(row, colour, scores) for row, colour in _coloured(report) if (scores := find(row))])
        for title, find in (('key frames', _key), ('between key frames', _between))
    ]
    kinds = [(title, entries) for title, entries in kinds if entries]
    if not kinds:
        return None
    figure = Figure(figsize=(4.6 * len(kinds) + 0.4, 5.2))
    grid = figure.subplots(2, len(kinds), squeeze=False, sharex=True, height_ratios=[3, 1])
    for (title, entries), (top, bottom) in zip(kinds, grid.T, strict=True):
        top.plot([0, 100], [0, 100], color='#aaaaaa', linewidth=1)
        legend: Legend = {}
        for row, colour, scores in entries:
            curve = np.array([[_number(value) for value in point] for point in scores['reliability_percent']])
            curve[curve[:, 2] < FEW, :2] = np.nan
            name = f'{row["name"]}: ECE {_number(scores["ece_percent"]):.1f} %'
            line = LINES[row['kind']]
            [legend[name]] = top.plot(curve[:, 0], curve[:, 1], line, marker='.', color=colour)
            edges = np.linspace(0, 100, len(curve) + 1)
            bottom.stairs(curve[:, 2], edges, color=colour, linestyle=line)
        top.set(title=title, ylabel='right (%)', xlim=(0, 100), ylim=(0, 100))
        bottom.set(xlabel='confidence (%)', ylabel='pixels (%)')
        _put(bottom, legend, loc='upper left', bbox_to_anchor=(0, -0.6), fontsize=8)
    return figure


def draw_classes(report: dict[str, Any]) -> Figure | None:
    """IoU of each class at the largest distance, and, as a tick, on the key frame.

    Bars, or dots where so many bars would hide each other.
    """
    entries = [
        (row, colour, scores)
        for row, colour in _coloured(report)
        if (scores := _furthest(report, row)) is not None
    ]
    if not entries:
        return None
    names = [entry['name'] for entry in report['classes']]
    distances = distances_of(report)
    crowded = len(entries) > MOST_INSIDE
    figure, axes = _figure(
        width=12.0 if crowded else max(7.0, 0.3 * len(names) * (len(entries) + 1)), height=4.2
    )
    width = 0.8 / len(entries)
    legend: Legend = {}
    ticks = None
    for index, (row, colour, scores) in enumerate(entries):
        places = np.arange(len(names)) + (index - (len(entries) - 1) / 2) * width
        shade = {MODEL: 1.0, WARP_ONLY: 0.55, PER_FRAME: 0.25}[row['kind']]
        values = [_number(scores['iou_percent'][name]) for name in names]
        if crowded:
            style: dict[str, Any] = {'color': colour, 'alpha': shade, 'markersize': 5}
            [legend[row['name']]] = axes.plot(places, values, MARKERS[row['kind']], **style)
        else:
            legend[row['name']] = axes.bar(places, values, 0.9 * width, color=colour, alpha=shade)
        key = row['distance'].get('0') if distances else _key(row)  # on the same frames as the bars
        if row['kind'] == MODEL and key is not None:
            levels = [_number(key['iou_percent'][name]) for name in names]
            ticks = axes.hlines(levels, places - width / 2, places + width / 2, color='#222222')
    if ticks is not None:
        legend['key frame'] = ticks
    where = f' at distance {distances[-1]}' if distances else ''
    axes.set(ylabel=f'IoU (%){where}', ylim=(0, 100), xlim=(-0.6, len(names) - 0.4))
    axes.set_xticks(range(len(names)), [name.replace('_', ' ') for name in names], rotation=35, ha='right')
    axes.grid(visible=False, axis='x')
    _put(axes, legend, loc='lower left', bbox_to_anchor=(0, 1), ncols=3, fontsize=9)
    return figure


def _figure(width: float = 7.0, height: float = 4.4) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()


def _line(
    axes: Axes,
    row: Row,
    distances: list[int],
    across: list[Any],
    values: list[float],
    colour: str,
    marker: str,
) -> Any:
    """A row's line, its markers hollow at the distances where it only carries."""
    carried = [place for place, d in enumerate(distances) if is_between_corrections(row, d)]
    style: dict[str, Any] = {'marker': marker, 'color': colour, 'markersize': 5}
    others = [place for place in range(len(distances)) if place not in carried]
    [line] = axes.plot(across, values, LINES[row['kind']], markevery=others, **style)
    if carried:
        axes.plot(across, values, linestyle='', markevery=carried, markerfacecolor='white', **style)
    return line


def _has_carried(report: dict[str, Any], distances: list[int]) -> bool:
    return any(is_between_corrections(row, distance) for row in report['rows'] for distance in distances)


def _number_points(axes: Axes, numbers: Sequence[float], across: list[float], values: list[float]) -> None:
    for number, place, value in zip(numbers, across, values, strict=True):
        axes.annotate(f'{number:g}', (place, value), (4, 4), textcoords='offset points', fontsize=8)


def _explain(axes: Axes, legend: Legend, title: str | None = None) -> None:
    """The legend, in the picture while it leaves room for the curves, else beside it."""
    if len(legend) <= MOST_INSIDE:
        _put(axes, legend, loc='best', title=title)
    else:
        _put(axes, legend, loc='center left', bbox_to_anchor=(1.02, 0.5), title=title, fontsize=9)


def _put(axes: Axes, legend: Legend, **where: Any) -> None:
    """Draws a legend; the names come last, as many versions of matplotlib leave out those with _ in front."""
    texts = axes.legend(list(legend.values()), ['name'] * len(legend), **where).get_texts()
    for text, name in zip(texts, legend, strict=True):
        text.set_text(name.encode(errors='replace').decode())  # a folder's name may be no UTF-8


def _coloured(report: dict[str, Any]) -> list[tuple[Row, str]]:
    """The rows, those of one model in one colour."""
    models = dict.fromkeys(row['model'] for row in report['rows'])
    colours = dict(zip(models, cycle(COLOURS), strict=False))
    return [(row, colours[row['model']]) for row in report['rows']]


def _key(row: Row) -> Row | None:
    scores = row.get('deployment', {}).get('key') or row.get('distance', {}).get('0')
    return scores if scores and scores['frames'] else None


def _between(row: Row) -> Row | None:
    if scores := row.get('deployment', {}).get('between'):
        return scores
    if row['kind'] == PER_FRAME:
        return None
    distances = [int(distance) for distance in row.get('distance', {}) if distance != '0']
    scores = row['distance'][str(max(distances))] if distances else None
    return scores if scores and scores['frames'] else None


def _furthest(report: dict[str, Any], row: Row) -> Row | None:
    """Scores at the largest distance, or those of the deployment where there are none by distance."""
    if distances := distances_of(report):
        return at_distance(row, distances[-1])
    return row.get('deployment', {}).get('all')


def _number(value: float | None) -> float:
    return np.nan if value is None else value
