"""Sinks take results: PNGs, overlay videos, bags, scores, topics."""

from __future__ import annotations

from typing import Protocol

from vss_ros.core.frame import Frame, Segmentation


class Sink(Protocol):
    """Takes every result of a run. Close it to complete what it writes."""

    def write(self, frame: Frame, segmentation: Segmentation) -> None: ...

    def close(self) -> None: ...


class FileSink(Sink, Protocol):
    """A sink that writes a file or folder: complete after `close`, not there at all after `discard`."""

    def discard(self) -> None: ...
