"""Sinks take results: PNGs, overlay videos, bags, scores, topics."""

from __future__ import annotations

from typing import Protocol

from vss_ros.core.frame import Frame, Segmentation


class Sink(Protocol):
    """Takes every result of a run. Close it to complete what it writes."""

    def write(self, frame: Frame, segmentation: Segmentation) -> None:
        """Takes the next result of the run.

        Args:
            frame: what was segmented, the image as it came: uint8 (H, W, 3) BGR, its stamp in nanoseconds.
            segmentation: of this frame: mask and confidence uint8 (H, W), or of the model's size where the
                stream's `output_size` is `network`.

        Raises:
            FrameError: this result cannot be written; the next one may be.
            OSError, SettingsError: nothing can be written there: the disk is full, say, or another run writes
                to the same place. Of a sink of `open_sinks` an OSError is an OutputError, which names it.
        """
        ...

    def close(self) -> None: ...


class FileSink(Sink, Protocol):
    """A sink that writes a file or folder: complete after `close`, not there at all after `discard`."""

    def discard(self) -> None: ...
