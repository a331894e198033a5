"""One camera: the source, the segmenter, the sink, and the worker thread that runs them."""

from __future__ import annotations

import atexit
from contextlib import ExitStack, suppress
from threading import Thread

from rclpy.lifecycle import LifecycleNode

from vss_ros.core import pipeline
from vss_ros.core.engines import DeviceEngine
from vss_ros.core.errors import EngineError, FrameError, error_text
from vss_ros.core.frame import Frame
from vss_ros.core.model.warm_up import warm_up
from vss_ros.core.stream.background import BackgroundKeyFrames
from vss_ros.core.stream.resets import ACTIVATED, BAD_FRAME, ENABLED, ERROR
from vss_ros.ros.core_log import CoreLog
from vss_ros.ros.loading import Loaded
from vss_ros.ros.settings import Settings
from vss_ros.ros.statistics import StreamStatistics
from vss_ros.ros.throttling import at_most_every
from vss_ros.ros.topic_sink import TopicSink
from vss_ros.ros.topic_source import TopicSource

THROTTLE_S = 5.0
STOP_S = 5.0  # within which a frame in work should be finished


class CameraStream:
    """Segments the images of one camera topic between `start` and `stop`.

    Threads: the executor's starts and stops the worker; the worker has the segmenter, which takes what the
    executor's asks of it with the next frame, the engine and the sink.

    Args:
        settings: the current ones. Live parameters may have changed since the model was loaded.
        loaded: belongs to the stream from now on, which closes it.
        log: takes what the core says on the worker thread.
    """

    def __init__(
        self,
        node: LifecycleNode,
        settings: Settings,
        statistics: StreamStatistics,
        loaded: Loaded,
        log: CoreLog,
    ) -> None:
        self._node = node
        self._log = log
        self.settings = settings
        self.statistics = statistics
        self.model, self.engine, self._segmenter = loaded.model, loaded.engine, loaded.segmenter
        with ExitStack() as undone:
            undone.callback(self.engine.close)
            undone.callback(self._segmenter.close)  # before the engine that its thread runs on
            self._segmenter.configure(settings.stream)
            self._sink = TopicSink(node, self.model, settings, statistics, self._on_failed)
            undone.pop_all()
        self.source: TopicSource | None = None
        self._worker: Thread | None = None

    @property
    def resets(self) -> dict[str, int]:
        """How often a new stream began, by reason."""
        return dict(self._segmenter.resets)

    @property
    def background(self) -> BackgroundKeyFrames | None:
        """What computes the key frames beside the stream, if that is wanted."""
        return self._segmenter.background

    @property
    def given_up(self) -> int:
        """Frames whose late results were lost with an error of the engine."""
        return self._segmenter.given_up

    @property
    def is_running(self) -> bool:
        return self._worker is not None and self._worker.is_alive()

    def start(self, subscribe: bool = True) -> None:
        """Starts the worker and, if wanted, subscribes."""
        self.source = TopicSource(self._node, self.settings.node, self.statistics, self._on_bad)
        if subscribe:
            self._subscribe(self.source)
        self._segmenter.reset(ACTIVATED)
        # A daemon does not keep a process alive that ends without `destroy_node`, by an exception say. Such a
        # process must not end while native code runs in there either.
        worker = Thread(target=self._work, name='segmentation', daemon=True)
        worker.start()  # or it cannot be, where there are too many
        atexit.register(self.stop)
        self._worker = worker

    def stop(self) -> None:
        """Unsubscribes and waits until the frame in work is finished.

        Raises:
            EngineError: it is not within STOP_S. The stream can be stopped again later.
        """
        if self.source is not None:
            self.source.close()
        if self._worker is not None:
            self._worker.join(STOP_S)
            if self._worker.is_alive():
                raise EngineError(
                    f'a frame was not finished within {STOP_S:g} s, and the node takes no more images; '
                    'deactivate it again, or end the process'
                )
        atexit.unregister(self.stop)
        self.source = self._worker = None

    def close(self) -> None:
        """Frees everything.

        Raises:
            EngineError: see `stop`; nothing is freed then.
        """
        self.stop()
        self._segmenter.close()
        self._sink.close()
        self.engine.close()

    def enable(self, enabled: bool) -> None:
        """Subscribes or unsubscribes; the model stays loaded and the worker waits.

        Raises:
            EngineError: the worker was stopped, or has ended: nobody would take the images.
        """
        if self.source is None:
            return
        if enabled and (self.source.is_closed or not self.is_running):
            raise EngineError(
                'the worker was stopped, and nobody would take images; deactivate the node again'
            )
        if enabled == self.source.is_subscribed:
            return
        if enabled:
            self._subscribe(self.source)
        else:
            self.source.unsubscribe()

    def _subscribe(self, source: TopicSource) -> None:
        self.statistics.start_over()
        self._segmenter.reset(ENABLED)  # not when disabled: a frame in work would take it
        source.subscribe()

    def reset(self, reason: str) -> None:
        """Forgets the temporal state."""
        self._segmenter.reset(reason)

    def request_key_frame(self) -> None:
        """Makes the next frame a key frame."""
        self._segmenter.request_key_frame()

    def check(self, settings: Settings) -> None:
        """Raises ModelError if the model cannot be run with these settings."""
        self._segmenter.check(settings.stream)

    def configure(self, settings: Settings) -> None:
        """Takes what may change while frames are coming in."""
        if settings.stream.max_frame_gap_s != self.settings.stream.max_frame_gap_s:
            self.statistics.forget_restarts()  # frames that came too late by the old one are no news
        self.settings = settings
        self._segmenter.configure(settings.stream)
        self._sink.configure(settings)
        if self.source is not None:
            self.source.configure(settings.node)

    def _work(self) -> None:
        assert self.source is not None
        self._log.claim_thread()
        try:
            if isinstance(self.engine, DeviceEngine):  # cuDNN chooses its kernels anew in each thread
                with suppress(EngineError):  # which the first image meets, too
                    warm_up(self.model, self.engine)
            pipeline.run(self.source, self._segmenter, [self._sink], self._on_failed)
        except Exception as error:  # only a mistake of our own ends the worker; it must not do so in silence
            self._node.get_logger().error(f'the worker thread has ended: {type(error).__name__}: {error}')

    def _on_bad(self, error: Exception) -> None:
        """An image could not be used: the temporal state is not to be trusted over the hole it leaves."""
        self._segmenter.reset(BAD_FRAME)
        self._report('bad', error)

    def _on_failed(self, error: Exception, frame: Frame | None) -> None:
        if not self._node.context.ok():  # the process is being ended: publishing fails, and that is fine
            return
        if isinstance(error, FrameError):  # it is too small for the regions
            self._on_bad(error)
        else:
            self._segmenter.reset(ERROR)
            # In a pause no frame fails, but those that are owed, which are `given_up`.
            self._report(None if frame is None else 'failed', error)

    def _report(self, what: str | None, error: Exception) -> None:
        text = error_text(error)
        in_a_row = self.statistics.bad_frame(what, text)
        log = self._node.get_logger()
        if in_a_row >= self.settings.node.max_consecutive_bad_frames:
            log.error(
                f'{in_a_row} frames in a row were skipped, the last: {text}', **at_most_every(THROTTLE_S)
            )
        else:
            log.warning(f'frame skipped: {text}', **at_most_every(THROTTLE_S))
