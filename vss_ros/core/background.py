"""Key frames computed beside the stream, so that no frame has to wait for one: constant latency.

A frame that is due as a key frame is answered at once by the propagated step, like every other. On a second
thread the key step of that same frame runs, and then the propagated step of each frame that has come since,
until it is level with the stream; its state replaces the stream's. From then on the answers are those of a
stream that had taken the key frame in the foreground (whose flow would have paused there). The price: until
then they rest on the key frame before, and each frame in between is propagated twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, TimeoutError
from dataclasses import dataclass
from threading import Lock
from typing import Any

from vss_ros.core.engines import Engine
from vss_ros.core.errors import EngineError
from vss_ros.core.model_folder import ModelFolder

MAX_BEHIND = 60  # frames that may wait; a thread that is farther behind does not catch up
CLOSE_S = 5.0  # within which the graph that runs should end


@dataclass(frozen=True)
class Handover:
    """What a key frame in the background comes to: the stream goes on as if it had been taken in time.

    Attributes:
        state: after the newest frame, under the names of the propagated step's inputs.
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
        self.handed_over = self.failed = 0

    @property
    def is_busy(self) -> bool:
        """Whether a key frame is in work."""
        return self._work is not None

    def begin(self, tensors: Mapping[str, Any], stamp_ns: int) -> None:
        """Starts the key step of the newest frame.

        Args:
            tensors: what the host gives the step: `image`.
        """
        self.drop()
        self._work = _KeyFrame(self._model, self._engine, self._pool, stamp_ns)
        self._work.add('key', tensors)

    def follow(self, tensors: Mapping[str, Any]) -> None:
        """Takes the next frame of the stream, for the key frame in work to be brought forward to.

        Args:
            tensors: what the host gives the propagated step: `image`, and `flow` if that is the host's.
        """
        if self._work is not None:
            self._work.add('propagated', tensors)

    def take(self) -> Handover | None:
        """The key frame in work if it is level with the stream, else None. Before the next frame is begun.

        Raises:
            Exception: it failed, with the reason. It is dropped and counted.
        """
        work = self._work
        if work is None or work.age_frames + 1 < self._delay_frames:
            return None
        try:
            if not work.is_level(wait=self._delay_frames > 0):
                return None
        except Exception:
            self.failed += 1
            self.drop()
            raise
        self.handed_over += 1
        self._work = None
        return Handover(work.state, work.age_frames, work.stamp_ns, work.confidence)

    def drop(self) -> None:
        """Forgets the key frame in work; the graph that runs for it runs to its end."""
        if self._work is not None:
            self._work.drop()
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


class _KeyFrame:
    """One key frame in work. `_advance` belongs to the pool's thread, all else to the stream's."""

    def __init__(self, model: ModelFolder, engine: Engine, pool: ThreadPoolExecutor, stamp_ns: int) -> None:
        self._model, self._engine, self._pool = model, engine, pool
        self._lock = Lock()
        self._waiting: deque[tuple[str, Mapping[str, Any]]] = deque()
        self._running: Future[None] | None = None
        self._dropped = False
        self.stamp_ns = stamp_ns
        self.age_frames = -1
        self.state: dict[str, Any] = {}  # belongs to the pool's thread while that runs
        self.confidence: Any = None

    def add(self, step: str, tensors: Mapping[str, Any]) -> None:
        self.age_frames += 1
        with self._lock:
            self._waiting.append((step, tensors))
            if self._running is None:
                self._running = self._pool.submit(self._advance)

    def is_level(self, wait: bool) -> bool:
        """Whether the state is that of the newest frame.

        Args:
            wait: until it is. Without, at most for the propagated step of one frame: the stream's own step
                of that frame took as long.
        Raises:
            Exception: what the steps raised.
            EngineError: too many frames are waiting.
        """
        with self._lock:
            running, left = self._running, len(self._waiting)
            is_last = self.confidence is not None and left == 0
        if running is None:
            return True
        if left > MAX_BEHIND:
            raise EngineError(
                f'{left} frames wait for a key frame that is computed in the background; the machine is too '
                'slow for it, set background_key_frames to false or lower the rate'
            )
        if not (wait or is_last or running.done()):
            return False
        running.result()  # raises what the steps raised
        return True

    def drop(self) -> None:
        with self._lock:
            self._dropped = True
            self._waiting.clear()

    def _advance(self) -> None:
        """Runs the steps that wait until none does. An error is left in `_running`."""
        while True:
            with self._lock:
                if not self._waiting or self._dropped:
                    self._running = None
                    return
                step, given = self._waiting.popleft()
            tensors = {**given, **self.state}
            for stage in self._model.steps[step]:
                if stage not in given and not self._dropped:  # a flow that the host gave
                    tensors |= self._engine.run(stage, tensors)
            if self._dropped:
                continue
            self.state = {name: tensors[output] for output, name in self._model.state.items()}
            if step == 'key':
                self.confidence = tensors['confidence']
