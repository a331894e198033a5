from types import SimpleNamespace

import numpy as np
import pytest

from vss_ros.core.classes import load_classes
from vss_ros.core.frame import Frame

pytest.importorskip('matplotlib')

from vss_ros.cli.contact_sheet import draw_contact_sheet


def replies(count):
    """A key frame and those after it, answered late."""
    image = np.zeros((360, 480, 3), np.uint8)
    pictures = dict.fromkeys(('mask', 'confidence', 'distortion'), image[..., 0])
    kinds = ['key'] + ['propagated'] * (count - 1)
    return [
        SimpleNamespace(
            frame=Frame(image, age * 10**9, truth=image[..., 0]),
            latency_ms=10_910.0,
            pictures=pictures,
            info={'kind': kind, 'age_frames': str(age)},
        )
        for age, kind in enumerate(kinds)
    ]


@pytest.mark.parametrize('classes', ['camvid11', 'cityscapes19'])
@pytest.mark.parametrize('count', [1, 2, 3, 4, 9])
def test_all_that_is_written_on_a_contact_sheet_is_on_it_and_apart(count, classes):
    figure = draw_contact_sheet(replies(count), load_classes(classes))
    figure.canvas.draw()  # which lays the legend out
    renderer = figure.canvas.get_renderer()
    [caption], [legend] = figure.texts, figure.legends
    written = [caption, *legend.get_texts()]
    written += [text for axes in figure.axes for text in (axes.title, axes.yaxis.label, *axes.texts)]
    for text in written:
        box = text.get_window_extent(renderer)
        assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 <= box.y1 <= figure.bbox.y1, text
    lowest = min(axes.get_window_extent(renderer).y0 for axes in figure.axes)
    boxes = [text.get_window_extent(renderer) for text in legend.get_texts()]
    assert caption.get_window_extent(renderer).y1 < min(box.y0 for box in boxes)
    assert max(box.y1 for box in boxes) < lowest
