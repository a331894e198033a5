"""One picture of a drive: what the node made of a key frame and of the frames after it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from vss_ros.core.classes import ClassSet
from vss_ros.core.drawing import overlay
from vss_ros.core.files.drafts import Draft
from vss_ros.core.metrics import ConfusionMatrix

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from vss_ros.ros.demo_client import Reply

COLUMNS = 5
ROWS = ('camera', 'mask', 'confidence', 'distortion')
NOTES = {  # where there is no distortion map, by kind of frame
    'key': 'computed in full:\nnothing was warped',
    'carried': 'only carried along:\nnothing was corrected',
}
COLUMN_INCHES = 3.0
PIXELS_PER_INCH = 110
INK, FRAME, PAPER = '#24292f', '#c0c7ce', '#ffffff'


def write_contact_sheet(path: Path, replies: Sequence[Reply], classes: ClassSet) -> None:
    """Draws the frames from one key frame to the next as columns, and what came back for them as rows.

    Args:
        path: a .png file; it is replaced.
        replies: complete replies in the order of their frames.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = spread(_best_run(replies, classes), COLUMNS)
    height, width = shown[0].frame.size
    row_inches = COLUMN_INCHES * height / width
    size = COLUMN_INCHES * len(shown) + 0.5, row_inches * len(ROWS) + 1.6
    figure = Figure(figsize=size, dpi=PIXELS_PER_INCH, facecolor=PAPER)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(ROWS), len(shown), left=0.5 / size[0], right=0.995, bottom=0.85 / size[1],
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
                axes.set_title(_caption(reply, shown[0], classes), fontsize=11, color=INK, linespacing=1.4)
            if column == 0:
                axes.set_ylabel(name, fontsize=13, color=INK)
            if name == 'distortion' and (note := NOTES.get(reply.info['kind'])):
                _note(axes, note)
    _legend(figure, classes, size)
    draft = Draft(path, overwrite=True)
    try:
        figure.savefig(draft.path, facecolor=PAPER)
        draft.publish()
    finally:
        draft.discard()


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


def _caption(reply: Reply, first: Reply, classes: ClassSet) -> str:
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


def _legend(figure: Any, classes: ClassSet, size: tuple[float, float]) -> None:
    """The classes' colours, and what the colours of the two maps mean."""
    from matplotlib.patches import Patch

    patches = [
        Patch(color=(red / 255, green / 255, blue / 255), label=name.replace('_', ' '))
        for name, (red, green, blue) in zip(classes.names, classes.colours, strict=True)
    ]
    figure.legend(
        handles=patches, loc='lower center', ncols=11, frameon=False, fontsize=11, labelcolor=INK,
        bbox_to_anchor=(0.5, 0.34 / size[1]), handlelength=1.2, handleheight=1.0, columnspacing=1.2,
    )  # fmt: skip
    figure.text(
        0.5, 0.2 / size[1],
        'confidence: white is sure, dark is in doubt     distortion: bright where the warped labels are not '
        'trusted and the correction takes over',
        ha='center', fontsize=11, color=INK,
    )  # fmt: skip
