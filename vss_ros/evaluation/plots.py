"""Plots of a report, as PNG."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np

from vss_ros.core.errors import MissingLibraryError
from vss_ros.evaluation.report import (
    at_distance,
    distances_of,
    frames_scored,
    furthest,
    has_carried,
    is_between_corrections,
    labelled,
)
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
NUMBER_SIZE = 8  # points
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
Box = tuple[float, float, float, float]


class Curve(NamedTuple):
    """The points of a row in a plot, with their numbers: distances, or settings of schedules."""

    row: Row
    colour: str
    marker: str
    numbers: Sequence[float]
    across: Sequence[float]
    values: Sequence[float]

    def style(self, later: Sequence[Curve]) -> dict[str, Any]:
        """How it is drawn: wider than those after it that lie upon it, so that it is seen beneath them."""
        hidden_by = sum(map(self._coincides, later))
        return {
            'marker': self.marker,
            'color': self.colour,
            'markersize': 5 + 3 * hidden_by,
            'linewidth': 1.5 + 2 * hidden_by,
        }

    def _coincides(self, other: Curve) -> bool:
        return all(
            len(ours) == len(theirs) and np.allclose(ours, theirs, rtol=0.005, equal_nan=True)
            for ours, theirs in ((self.across, other.across), (self.values, other.values))
        )


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
                _say_of_what(figure, report, name)
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
    curves = []
    for row, colour in _coloured(report):
        found = [at_distance(row, distance) for distance in distances]
        values = [np.nan if scores is None else _number(scores['miou_percent']) for scores in found]
        marker = '' if row['kind'] == PER_FRAME else MARKERS[row['kind']]
        curves.append(Curve(row, colour, marker, distances, distances, values))
    legend = _draw_curves(axes, curves)
    axes.set(xlabel='frames since the key frame', ylabel='mIoU (%)', xticks=distances)
    _explain(axes, legend, HOLLOW if has_carried(report, distances) else None)
    return figure


def draw_cca(report: dict[str, Any]) -> Figure | None:
    """mIoU over the mean cost of a frame, a point for each distance; None where costs are not known."""
    distances = distances_of(report)
    if not distances or any(row['gmac'] is None for row in report['rows']):
        return None
    figure, axes = _figure()
    curves = []
    for row, colour in _coloured(report):
        points = [(d, scores) for d in distances if (scores := row['distance'].get(str(d))) is not None]
        costs = [scores['gmac_per_frame'] for _, scores in points]
        values = [_number(scores['miou_percent']) for _, scores in points]
        shown = [distance for distance, _ in points]
        curves.append(Curve(row, colour, MARKERS[row['kind']], shown, costs, values))
    legend = _draw_curves(axes, curves)
    axes.set_xlim(left=0)
    _number_points(axes, [curve for curve in curves if curve.row['kind'] != PER_FRAME])
    axes.set(xlabel='GMAC per frame, mean from the key frame to distance d', ylabel='mIoU (%)')
    _explain(axes, legend, 'numbers: distance d' + (f'\n{HOLLOW}' if has_carried(report, distances) else ''))
    return figure


def draw_schedules(report: dict[str, Any]) -> Figure | None:
    """mIoU over the mean cost of a frame, a point for each schedule; None where costs are not known."""
    entries = [(row, colour) for row, colour in _coloured(report) if row.get('schedules')]
    if not entries or any(
        each['gmac_per_frame'] is None for row, _ in entries for each in row['schedules'].values()
    ):
        return None
    figure, axes = _figure()
    drawn: dict[str, tuple[str, Curve]] = {}  # line and points
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
            curve = Curve(row, colour, marker, [each[setting] for each in found], costs, values)
            drawn[f'{row["name"]}, {scheduler}'] = line, curve
            numbers.append(setting.removeprefix('key_frame_'))
    curves = [curve for _, curve in drawn.values()]
    legend: Legend = {}
    for number, (name, (line, curve)) in enumerate(drawn.items()):
        style = curve.style(curves[number + 1 :])
        [legend[name]] = axes.plot(curve.across, curve.values, line, **style)
    axes.set_xlim(left=0)
    _number_points(axes, curves)
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
        if (scores := furthest(report, row)) is not None
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


def _draw_curves(axes: Axes, curves: Sequence[Curve]) -> Legend:
    """Lines through what was computed; what is only carried has hollow markers, which no line joins."""
    legend: Legend = {}
    for number, curve in enumerate(curves):
        style = curve.style(curves[number + 1 :])
        points = list(zip(curve.numbers, curve.across, curve.values, strict=True))
        carried = [point for point in points if is_between_corrections(curve.row, int(point[0]))]
        computed = [point for point in points if point not in carried]
        [legend[curve.row['name']]] = axes.plot(*_places(computed), LINES[curve.row['kind']], **style)
        if carried:
            axes.plot(*_places(carried), linestyle='', markerfacecolor='white', **style)
    return legend


def _places(points: Sequence[tuple[float, float, float]]) -> tuple[list[float], list[float]]:
    return [across for _, across, _ in points], [value for *_, value in points]


def _number_points(axes: Axes, curves: Sequence[Curve]) -> None:
    """Writes the number of each point beside it, where no other number and no marker stands.

    Call it when the limits of the axes are set.
    """
    axes.autoscale_view()
    points = [
        ((x, y), axes.transData.transform((x, y)) * 72 / axes.figure.dpi, f'{number:g}')
        for curve in curves
        for number, x, y in zip(curve.numbers, curve.across, curve.values, strict=True)
        if not np.isnan(y)
    ]
    taken = [(x - 3, y - 3, x + 3, y + 3) for _, (x, y), _ in points]  # in points, by markers
    written: set[tuple[Any, ...]] = set()  # what coincides is numbered once
    for place, (x, y), text in points:
        if (text, round(x), round(y)) in written:
            continue
        written.add((text, round(x), round(y)))
        width, height = NUMBER_SIZE * 0.65 * len(text), NUMBER_SIZE
        left, below = -4 - width, -4 - height
        sides = [(4, 4), (4, below), (left, 4), (left, below), (7, -4), (left - 3, -4)]
        boxes = [(x + right, y + up, x + right + width, y + up + height) for right, up in sides]
        hits = [sum(_overlap(box, other) for other in taken) for box in boxes]
        best = hits.index(min(hits))
        taken.append(boxes[best])
        axes.annotate(text, place, sides[best], textcoords='offset points', fontsize=NUMBER_SIZE)


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _say_of_what(figure: Figure, report: dict[str, Any], name: str) -> None:
    """Writes above a plot what its figures are of."""
    if name == 'schedules':
        protocols = ['schedules']
    elif distances_of(report) and name != 'reliability':
        protocols = ['distance']
    else:
        protocols = ['deployment'] if 'deployment' in report['rows'][0] else ['distance']
    text = f'{report["data"]["name"]}, {labelled(frames_scored(report, *protocols))}'
    left = figure.axes[0].get_position().xmin
    top = figure.get_tightbbox().ymax / figure.get_figheight()  # above titles and legends, too
    shown = text.encode(errors='replace').decode()
    figure.text(left, top + 0.01, shown, va='bottom', fontsize=NUMBER_SIZE, color='#666666')


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


def _number(value: float | None) -> float:
    return np.nan if value is None else value
