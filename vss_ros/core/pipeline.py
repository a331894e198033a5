"""The one loop: frames from a source, through a segmenter, into sinks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from vss_ros.core.frame import Frame
from vss_ros.core.open_segmenter import Segmenter
from vss_ros.core.sinks import Sink


def run(
    source: Iterable[Frame | None],
    segmenter: Segmenter,
    sinks: Sequence[Sink],
    on_error: Callable[[Exception, Frame | None], None] | None = None,
) -> None:
    """Segments every frame of `source` and hands it to every sink with its result, in order.

    Args:
        source: a live one may give None where nothing comes for a while: then, as at the end, the
            frames that wait for those after them are answered without them.
        on_error: a live stream passes a function that reports the lost frame, and goes on; it is None
            where those were lost that waited, which the segmenter counts. Without a function the first
            error ends the run.
    """

    def take(frame: Frame | None) -> None:
        try:
            for answer in segmenter.flush() if frame is None else segmenter.answers(frame):
                for sink in sinks:
                    sink.write(answer.frame, answer.segmentation)
        except Exception as error:
            if on_error is None:
                raise
            on_error(error, frame)

    for frame in source:
        take(frame)
    take(None)
