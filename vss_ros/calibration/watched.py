"""A method run over clips in PyTorch by the runtime's own segmenter, so that inner tensors can be seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from vss_ros.core.engines.torch_device import CpuDevice
from vss_ros.core.frame import Answer, Frame
from vss_ros.core.model.folder import ModelFolder
from vss_ros.core.settings import StreamSettings
from vss_ros.core.stream.segmenter import VideoSegmenter
from vss_ros.methods.method import Method
from vss_ros.torch_engine.engine import TorchEngine

SEED = 0


@contextmanager
def told_of_calls(method: Method, name: str, tell: Callable[..., None]) -> Iterator[None]:
    """Inside, `tell` is given what a function of this method is called with, each time before it runs.

    What graphs hand to each other is seen by an engine; what lies between the lines of a graph only so.
    """
    function = getattr(method, name)

    def telling(*arguments: Any) -> Any:
        tell(*arguments)
        return function(*arguments)

    setattr(method, name, telling)  # on the object, before the function of its class
    try:
        yield
    finally:
        delattr(method, name)


def answers_on(
    clips: Iterable[tuple[int, Iterable[Frame]]], model: ModelFolder, method: Method, span: int
) -> Iterator[tuple[int, Answer]]:
    """Every answer, with the number of its clip, one frame after the other; none of them is only carried.

    Args:
        clips: a number and the frames of each.
        model: the folder that the method was made from.
        span: the most frames from a key frame to the next. From the second key frame of a clip on their
            number varies, so that labels at regular distances meet every age.
    """
    watched = replace(model, state=method.state)
    engine = TorchEngine(method, CpuDevice(), 'fp32')
    settings = StreamSettings(
        span, correction_interval=1, max_frame_gap_s=float('inf'), output_size='network'
    )
    rng = np.random.default_rng(SEED)
    for number, frames in clips:
        segmenter = VideoSegmenter(watched, engine, settings)
        left = span
        for frame in frames:
            if left == 0:
                segmenter.request_key_frame()
                left = int(rng.integers(span - span // 3, span + 1))
            left -= 1
            for answer in segmenter.answers(frame):
                yield number, answer
        for answer in segmenter.flush():
            yield number, answer
