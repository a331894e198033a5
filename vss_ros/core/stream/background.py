"""Key frames computed beside the stream, so that no frame has to wait for one: constant latency.

A frame that is due as a key frame is answered at once like every other, by what the stream has. On a second
thread the key step of that same frame runs; its state then replaces the stream's, and the next frame is
warped from there. So the answers are those of a stream that took the key frame in the foreground and only
carried the frames between. The price: until then they rest on the key frame before.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, TimeoutError
from dataclasses import dataclass
from typing import Any

import numpy as np

from vss_ros.core.engines import DeviceEngine, Engine
from vss_ros.core.errors import EngineError
from vss_ros.core.model.folder import ModelFolder

MAX_AGE = 60  # frames after which a key frame that is still in work is given up
CLOSE_S = 5.0  # within which the graph that runs should end
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Handover:
    """What a key frame in the background comes to: the stream goes on from it.

    Attributes:
        state: what the key frame hands on, under the names of the propagated step's inputs.
        age_frames: frames that came after the key frame.
        stamp_ns: of the key frame.
        confidence: the key frame's own, a tensor of the engine's.
    """

    state: dict[str, Any]
    age_frames: int
    stamp_ns: int
    confidence: Any


class BackgroundKeyFrames:
    """Takes the key frames of one stream, one at a time. Its methods belong to the stream's thread.

    Args:
        engine: of the stream; a second one beside it does the work.
        delay_frames: 0 hands over as soon as possible, which depends on the machine's speed; with any other
            number the first answer that rests on a key frame is that of exactly so many frames later,
            for results that can be repeated.

    Attributes:
        handed_over, failed: how many key frames came to that.

    Raises:
        EngineError: the engine cannot be used by two threads.
    """

    def __init__(self, model: ModelFolder, engine: Engine, delay_frames: int = 0) -> None:
        self._model = model
        self._engine = engine.second()
        self._pool = ThreadPoolExecutor(1, 'key_frames')
        self._delay_frames = delay_frames
        self._work: _KeyFrame | None = None
        self._is_closed = False
        self._begun_s: float | None = None  # when the thread took up what it runs now
        self.handed_over = self.failed = 0
        if isinstance(self._engine, DeviceEngine):  # cuDNN chooses its kernels anew in each thread
            grey = np.zeros((1, *model.image_size, 3), np.uint8)
            self._pool.submit(self._run, {'image': grey}).add_done_callback(_tell_of_failure)

    @property
    def is_busy(self) -> bool:
        """Whether a key frame is in work."""
        return self._work is not None

    @property
    def in_work_s(self) -> float:
        """For how long the thread has had the key frame that it runs, also one that was dropped."""
        begun_s = self._begun_s
        return 0.0 if begun_s is None else time.monotonic() - begun_s

    def begin(self, tensors: Mapping[str, Any], stamp_ns: int) -> None:
        """Starts the key step of the newest frame, while no other is in work.

        Args:
            tensors: what the host gives the step: `image`.
        """
        given = dict(tensors)
        self._work = _KeyFrame(self._pool.submit(self._run, given), given, stamp_ns)

    def follow(self) -> None:
        """Is told of every later frame that is no key frame."""
        if self._work is not None:
            self._work.age_frames += 1

    def take(self) -> Handover | None:
        """The key frame in work once it is there, else None. Before the next frame is begun.

        Raises:
            Exception: it failed, with the reason. It is dropped and counted.
        """
        work = self._work
        if work is None or work.age_frames + 1 < self._delay_frames:
            return None
        if not self._delay_frames and not work.running.done() and work.age_frames <= MAX_AGE:
            return None
        self._work = None
        try:
            tensors = work.running.result(None if self._delay_frames else 0)
        except TimeoutError as error:
            self.failed += 1
            work.cancel()
            raise EngineError(
                f'a key frame in the background is not there {work.age_frames} frames later; the machine is '
                'too slow for it, set background_key_frames to false or lower the rate'
            ) from error
        except Exception:
            self.failed += 1
            raise
        self.handed_over += 1
        state = self._model.state_of(tensors)
        return Handover(state, work.age_frames, work.stamp_ns, tensors['confidence'])

    def drop(self) -> None:
        """Forgets the key frame in work; the step that runs for it runs to its end."""
        if self._work is not None:
            self._work.cancel()
            self._work = None

    def close(self) -> None:
        """Waits until nothing runs any more.

        Raises:
            EngineError: the graph that runs does not end within CLOSE_S. This can be called again later.
        """
        self.drop()
        if self._is_closed:
            return
        try:
            self._pool.submit(lambda: None).result(CLOSE_S)  # the one thread takes it up last
        except TimeoutError as error:
            raise EngineError(
                f'the engine did not come back from a key frame in the background within {CLOSE_S:g} s; try '
                'again, or end the process'
            ) from error
        self._pool.shutdown()
        self._is_closed = True
        del self._engine  # what it holds goes before the engine of the stream, which it ends with

    def _run(self, tensors: dict[str, Any]) -> dict[str, Any]:
        """Runs the key step, on the pool's thread."""
        self._begun_s = time.monotonic()
        try:
            for stage in self._model.steps['key']:
                tensors |= self._engine.run(stage, tensors)
        finally:
            self._begun_s = None
        return tensors


def _tell_of_failure(warm_up: Future[dict[str, Any]]) -> None:
    if error := warm_up.exception():  # which the first key frame meets, too
        _log.warning('key frames in the background cannot be prepared: %s', error)


@dataclass
class _KeyFrame:
    """One key frame in work."""

    running: Future[dict[str, Any]]
    tensors: dict[str, Any]
    stamp_ns: int
    age_frames: int = 0

    def cancel(self) -> None:
        """Keeps it from being run, if it waits; one that runs does so to its end."""
        if self.running.cancel():  # the pool keeps it until its turn comes, which may be never
            self.tensors.clear()
