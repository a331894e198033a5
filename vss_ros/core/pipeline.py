"""The one loop: frames from a source, through a segmenter, into sinks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from vss_ros.core.frame import Frame
from vss_ros.core.segmenter import VideoSegmenter
from vss_ros.core.sinks import Sink


def run(
    source: Iterable[Frame],
    segmenter: VideoSegmenter,
    sinks: Sequence[Sink],
    on_error: Callable[[Frame, Exception], None] | None = None,
) -> None:
    """Segments every frame of `source` and hands it to every sink, in order.

    Args:
        on_error: a live stream passes a function that reports the lost frame, and goes on; without
            one the first error ends the run.
    """
    for frame in source:
        try:
            segmentation = segmenter.step(frame)
            for sink in sinks:
                sink.write(frame, segmentation)
        except Exception as error:
            if on_error is None:
                raise
            on_error(frame, error)
