"""The curves of a training as a picture: losses over steps; scores by distance, or over steps."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from vss_ros.core.errors import MissingLibraryError
from vss_ros.training.step_log import by_distance

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ImportError as error:
    raise MissingLibraryError('matplotlib', 'plot', cause=error) from error

STYLE: dict[Any, Any] = {'font.size': 9, 'axes.grid': True, 'grid.color': '#dddddd', 'legend.frameon': False}
NOT_DRAWN = ('step', 'seconds')


def draw_curves(logs: Mapping[str, list[dict[str, Any]]]) -> bytes:
    """One row for each stage, as PNG.

    Args:
        logs: stage -> lines of its log, see `StepLog`.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 2.8 * len(logs)), layout='constrained')
        axes = figure.subplots(len(logs), 2, squeeze=False)
        for (left, right), (stage, log) in zip(axes, logs.items(), strict=True):
            _draw_losses(left, [line for line in log if 'loss' in line])
            _draw_scores(right, [line for line in log if 'loss' not in line])
            left.set_title(stage, loc='left')
        buffer = io.BytesIO()
        # No version in the file: the same curves give the same bytes.
        figure.savefig(buffer, format='png', dpi=110, metadata={'Software': None})
    return buffer.getvalue()


def _draw_losses(axes: Axes, lines: list[dict[str, Any]]) -> None:
    """Running means over a fiftieth of the steps."""
    names = [name for name in (lines[-1] if lines else {}) if name not in NOT_DRAWN]
    window = max(len(lines) // 50, 1)
    for name in names:
        values = np.array([line.get(name, np.nan) for line in lines])
        smooth = np.convolve(values, np.ones(window) / window, 'valid')
        axes.plot(np.arange(len(smooth)) + window, smooth, label=name, linewidth=2 if name == 'loss' else 1)
    axes.set(xlabel='steps', ylabel='loss')
    if names:
        _explain(axes)


def _draw_scores(axes: Axes, lines: list[dict[str, Any]]) -> None:
    last = {name: value for name, value in (lines[-1] if lines else {}).items() if name not in NOT_DRAWN}
    distances = by_distance(last)
    for name, points in distances.items():
        axes.plot(*zip(*sorted(points.items()), strict=True), marker='o', markersize=3, label=name)
    if distances:
        axes.set(xlabel='frames after the key frame, last validation', ylabel='%')
    elif last:
        plotted = [name for name in last if not name.startswith('iou_')]
        for name in plotted:
            axes.plot(
                [line['step'] + 1 for line in lines], [line[name] for line in lines], marker='o', label=name
            )
        axes.set(xlabel='steps', ylabel='%')
    if last:
        _explain(axes)
    else:
        axes.axis('off')


def _explain(axes: Axes) -> None:
    """The legend, in room made for it above the curves."""
    columns = 3
    rows = -(-len(axes.lines) // columns)
    bottom, top = axes.get_ylim()
    axes.set_ylim(top=top + 0.1 * (rows + 0.5) * (top - bottom))
    axes.legend(fontsize=7, loc='upper left', ncols=columns)
