"""One picture of a drive: what the node made of a key frame and of the frames after it."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from math import ceil
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from vss_ros.core.classes import ClassSet
from vss_ros.core.drawing import overlay
from vss_ros.core.files.drafts import write_file
from vss_ros.core.metrics import ConfusionMatrix

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vss_ros.ros.demo_client import Reply

COLUMNS = 5
ROWS = ('camera', 'mask', 'confidence', 'distortion')
NOTES = {  # where there is no distortion map, by kind of frame
    'key': 'computed in full:\nnothing was warped',
    'carried': 'only carried along:\nnothing was corrected',
}
MAPS = (
    'confidence: white is sure, dark is in doubt',
    'distortion: bright where the warped labels are not trusted and the correction takes over',
)
COLUMN_INCHES = 3.0
LINE_INCHES = 0.22  # of the text below
CHARACTERS_PER_INCH = 11  # of it; most lines hold a few more
PATCH_INCHES = 0.5  # of a class's colour and the gaps around it
PIXELS_PER_INCH = 110
INK, FRAME, PAPER = '#24292f', '#c0c7ce', '#ffffff'


def write_contact_sheet(path: Path, replies: Sequence[Reply], classes: ClassSet) -> None:
    """Writes the picture of `draw_contact_sheet`.

    Args:
        path: a .png file; it is replaced.
    """
    content = BytesIO()
    draw_contact_sheet(replies, classes).savefig(content, facecolor=PAPER)
    write_file(path, content.getvalue())


def draw_contact_sheet(replies: Sequence[Reply], classes: ClassSet) -> Figure:
    """The frames from one key frame to the next as columns, and what came back for them as rows.

    Args:
        replies: complete replies in the order of their frames.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = spread(_best_run(replies, classes), COLUMNS)
    height, width = shown[0].frame.size
    row_inches = COLUMN_INCHES * height / width
    figure_inches = COLUMN_INCHES * len(shown) + 0.5
    caption = _caption(figure_inches)
    legend_columns = _legend_columns(classes.names, figure_inches)
    bottom = LINE_INCHES * (len(caption) + ceil(len(classes) / legend_columns)) + 0.4
    size = figure_inches, row_inches * len(ROWS) + bottom + 0.6
    figure = Figure(figsize=size, dpi=PIXELS_PER_INCH, facecolor=PAPER)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(ROWS), len(shown), left=0.5 / size[0], right=0.995, bottom=bottom / size[1],
        top=1 - 0.6 / size[1], wspace=0.02, hspace=0.02,
    )  # fmt: skip
    for column, reply in enumerate(shown):
        for row, name in enumerate(ROWS):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(_picture(name, reply, classes), interpolation='none')
            axes.set(xticks=[], yticks=[])
            for spine in axes.spines.values():
                spine.set(color=FRAME, linewidth=0.8)
            if row == 0:
                axes.set_title(_title(reply, shown[0], classes), fontsize=11, color=INK, linespacing=1.4)
            if column == 0:
                axes.set_ylabel(name, fontsize=13, color=INK)
            if name == 'distortion' and (note := NOTES.get(reply.info['kind'])):
                _note(axes, note)
    _legend(figure, classes, legend_columns, caption)
    return figure


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of the items, evenly spread, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def _best_run(replies: Sequence[Reply], classes: ClassSet) -> list[Reply]:
    """The run of frames from one key frame to the next that shows the most classes; then the longest."""
    runs: list[list[Reply]] = []
    for reply in replies:
        if not runs or reply.info['kind'] == 'key':
            runs.append([])
        runs[-1].append(reply)
    if max(len(run) for run in runs) == 1:  # nothing but key frames
        return list(replies)
    longest = max(len(run) for run in runs)

    def variety(run: list[Reply]) -> int:
        labels = run[0].frame.truth if run[0].frame.truth is not None else run[0].pictures['mask']
        counts = np.bincount(labels.ravel(), minlength=256)[: len(classes)]
        return int((counts > 0.002 * labels.size).sum())

    return max((run for run in runs if len(run) == longest), key=variety)


def _picture(name: str, reply: Reply, classes: ClassSet) -> np.ndarray:
    """One tile, RGB."""
    image = reply.frame.image
    if name == 'camera':
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    picture = _fitted(reply.pictures[name], image)
    if name == 'mask':
        return cv2.cvtColor(overlay(image, picture, classes, 0.7), cv2.COLOR_BGR2RGB)
    if name == 'confidence':
        return cv2.cvtColor(cv2.applyColorMap(picture, cv2.COLORMAP_BONE), cv2.COLOR_BGR2RGB)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2RGB) // 2
    heat = cv2.cvtColor(cv2.applyColorMap(picture, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    weight = picture[..., None].astype(np.float32) / 255
    return np.uint8(grey * (1 - weight) + heat * weight)


def _fitted(picture: np.ndarray, image: np.ndarray) -> np.ndarray:
    if picture.shape == image.shape[:2]:
        return picture
    return np.asarray(cv2.resize(picture, image.shape[1::-1], interpolation=cv2.INTER_NEAREST), np.uint8)


def _title(reply: Reply, first: Reply, classes: ClassSet) -> str:
    if reply.info['kind'] == 'key':
        title = 'key frame'
    else:
        after_ms = (reply.frame.stamp_ns - first.frame.stamp_ns) / 1e6
        title = f'+{reply.info["age_frames"]} ({after_ms:.0f} ms later)'
    facts = [f'{reply.latency_ms:.0f} ms']
    if reply.frame.truth is not None:
        matrix = ConfusionMatrix(len(classes))
        matrix.update(reply.frame.truth, _fitted(reply.pictures['mask'], reply.frame.image))
        facts.append(f'mIoU {100 * matrix.miou():.0f}')
    return f'{title}\n{", ".join(facts)}'


def _note(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha='center', va='center', color='white', fontsize=10)


def _caption(figure_inches: float) -> list[str]:
    """What the colours of the two maps mean, in lines that the figure has room for."""
    most = int(CHARACTERS_PER_INCH * figure_inches)
    whole = '     '.join(MAPS)
    return [whole] if len(whole) <= most else [line for text in MAPS for line in wrap(text, most)]


def _legend_columns(names: Sequence[str], figure_inches: float) -> int:
    """In how many columns the figure has room for the classes, in as few lines as can be."""
    for lines in range(1, len(names)):
        columns = ceil(len(names) / lines)
        widest = [max(map(len, column)) for column in np.array_split(names, columns)]
        if sum(widest) / CHARACTERS_PER_INCH + PATCH_INCHES * columns <= figure_inches:
            return columns
    return 1


def _legend(figure: Figure, classes: ClassSet, columns: int, caption: Sequence[str]) -> None:
    """The classes' colours, above the caption."""
    from matplotlib.patches import Patch

    patches = [
        Patch(color=(red / 255, green / 255, blue / 255), label=name.replace('_', ' '))
        for name, (red, green, blue) in zip(classes.names, classes.colours, strict=True)
    ]
    inch = 1 / figure.get_figheight()
    figure.legend(
        handles=patches, loc='lower center', ncols=columns, frameon=False, fontsize=11, labelcolor=INK,
        bbox_to_anchor=(0.5, (LINE_INCHES * len(caption) + 0.1) * inch), handlelength=1.2, handleheight=1.0,
        columnspacing=1.2,
    )  # fmt: skip
    figure.text(
        0.5, 0.1 * inch, '\n'.join(caption), ha='center', va='bottom', fontsize=11, color=INK, linespacing=1.3
    )  # fmt: skip
