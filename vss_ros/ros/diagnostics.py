"""The health of the node, once a second on /diagnostics."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from vss_ros.core.stream.resets import GAP
from vss_ros.ros.core_log import CoreLog
from vss_ros.ros.fast_dds import VARIABLES
from vss_ros.ros.statistics import Tally
from vss_ros.ros.stream import CameraStream
from vss_ros.ros.throttling import at_most_every
from vss_ros.ros.video_topic import VIDEO_TRANSPORTS

PERIOD_S = 1.0
THROTTLE_S = 10.0
QOS_NEWS_S = 30.0
RESTARTS = 3  # new streams in a row that are no accident
BACKGROUND_FAILURES = 'background_failures'
GIVEN_UP = 'given_up'
MISSED_SHARE = 0.05  # of the images of the last period; below it is the noise of best effort

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
Problem = tuple[bytes, str]


class Diagnostics:
    """Watches a stream and says what is wrong with it, by name.

    The owner sets `state` (of the lifecycle), `error` (of the last transition) and `enabled` as they change.
    Threads: the executor's alone; what the worker does it sees through the stream.

    Args:
        log: its newest line tells how far the configuration is.
    """

    def __init__(self, node: Node, log: CoreLog) -> None:
        self._node = node
        self._log = log
        self._publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 10)
        # The steady clock: under simulated time a stalled /clock must not silence this.
        self.clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(PERIOD_S, self.publish, clock=self.clock)
        self.state = 'unconfigured'
        self.error = ''
        self.enabled = True
        self.stream: CameraStream | None = None
        self._active_since_s = 0.0
        self._before: Counter[str] = Counter()  # what had been counted when it was last told

    def start_over(self) -> None:
        """Starts to expect images from now on; what was before is no news."""
        self._active_since_s = time.monotonic()
        self._before.clear()
        if self.stream is not None:
            self._before.update(self.stream.statistics.snapshot().counts)
            self._before[GIVEN_UP] = self.stream.given_up
            if self.stream.background is not None:
                self._before[BACKGROUND_FAILURES] = self.stream.background.failed

    def publish(self) -> None:
        """Publishes the state of now."""
        if self.stream is not None and self.stream.source is not None:
            self.stream.source.look_for_publishers()
        problems = self.problems()
        status = DiagnosticStatus(
            level=max((level for level, _ in problems), default=OK),
            name=f'{self._node.get_fully_qualified_name().lstrip("/")}: segmentation',
            message='; '.join(text for _, text in problems) or self._summary(),
            hardware_id=self._node.get_namespace(),
            values=[KeyValue(key=key, value=str(value)) for key, value in self._values().items()],
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)

    def problems(self) -> list[Problem]:
        """What is wrong now; what has been counted is told once."""
        if self.error:
            return [(ERROR, self.error)]
        stream = self.stream
        if stream is None or self.state != 'active':
            return []
        tally = stream.statistics.snapshot()
        problems: list[Problem] = []
        if not stream.is_running:
            problems.append((ERROR, 'the worker thread has ended; deactivate and activate the node'))
        stuck = self._stuck(stream)
        if not self.enabled:
            return problems + stuck
        stall = self._stall(stream, tally)
        # While no image comes, an old refusal of them may be the reason; all else is over after a while.
        silent_topic = stream.source.topic if stream.source and stall else ''
        problems += stall
        problems += [(WARN, text) for text in stream.statistics.qos_problems(QOS_NEWS_S, silent_topic)]
        problems += self._shared(stream)
        silence = [] if stuck or stall else self._silence(stream, tally)
        problems += self._bad_frames(stream, tally, bool(silence))
        problems += self._losses(stream, tally)
        problems += stuck + silence
        if not (stall or silence):  # how long frames took before is not why no mask comes
            problems += self._slowness(stream, tally)
        if not stall:
            problems += self._restarts(stream, tally)
            problems += self._geometry(stream)
            problems += self._background(stream)
        return problems

    def _summary(self) -> str:
        if self.state == 'configuring':
            return f'configuring: {self._log.last}'
        return self.state if self.enabled else f'{self.state}, disabled'

    def _values(self) -> dict[str, Any]:
        values: dict[str, Any] = {'state': self.state, 'enabled': self.enabled}
        stream = self.stream
        if stream is None:
            return values
        statistics = stream.statistics
        median, tail = statistics.latency_ms()
        tally = statistics.snapshot()
        values |= {
            'input_topic': stream.source.topic if stream.source else '',
            'camera_info_topic': stream.source.camera_info_topic if stream.source else '',
            'input_rate_hz': f'{statistics.rate_hz("received"):.2f}',
            'output_rate_hz': f'{statistics.rate_hz("published"):.2f}',
            'latency_p50_ms': f'{median:.2f}',
            'latency_p99_ms': f'{tail:.2f}',
        }
        names = (
            'received',
            'published',
            'dropped',
            'discarded',
            'undecoded',
            'lost',
            'missed',
            'bad',
            'failed',
            'camera_info_received',
            'camera_info_unmatched',
        )
        values |= {name: tally.counts[name] for name in names}
        values |= {'model': stream.model.name, 'model_path': stream.model.path, 'method': stream.model.method}
        values |= {
            key if key == 'engine' else f'engine_{key}': v for key, v in stream.engine.describe().items()
        }
        if stream.background is not None:
            values['background_key_frames'] = stream.background.handed_over
            values[BACKGROUND_FAILURES] = stream.background.failed
        values |= {f'resets.{reason}': count for reason, count in stream.resets.items()}
        values |= {
            GIVEN_UP: stream.given_up,
            'resets': sum(stream.resets.values()),
            'last_error': tally.last_error,
        }
        return values

    def _stall(self, stream: CameraStream, tally: Tally) -> list[Problem]:
        since_s = max(tally.last_received_s or 0.0, self._active_since_s)
        silence_s = time.monotonic() - since_s
        if stream.source is None or silence_s < stream.settings.node.input_timeout_s:
            return []
        publishers = stream.source.publishers.names
        seen = f'publishers on it: {", ".join(publishers)}' if publishers else 'nobody publishes on it'
        text = f'no image on {stream.source.topic} for {silence_s:.0f} s; {seen}'
        self._node.get_logger().warning(text, **at_most_every(THROTTLE_S))
        return [(WARN, text)]

    def _shared(self, stream: CameraStream) -> list[Problem]:
        """Images of two cameras would be taken for one stream, whose masks are those of both in turn."""
        if stream.source is None or not stream.source.publishers.take_turns:
            return []
        publishers = stream.source.publishers.names
        text = (
            f'{len(publishers)} publishers are on {stream.source.topic}: {", ".join(publishers)}; masks may '
            'be carried from images of one to those of another. Let one publish, or give each its own topic'
        )
        self._node.get_logger().warning(text, **at_most_every(THROTTLE_S))
        return [(WARN, text)]

    def _bad_frames(self, stream: CameraStream, tally: Tally, no_mask_comes: bool) -> list[Problem]:
        """Told once; while no mask comes, of which they are the reason, all the time."""
        skipped = self._new('bad', tally.counts['bad']) + self._new('failed', tally.counts['failed'])
        skipped += self._new(GIVEN_UP, stream.given_up)
        if no_mask_comes:
            skipped = max(skipped, tally.bad_in_a_row)
        if tally.bad_in_a_row >= stream.settings.node.max_consecutive_bad_frames:
            return [(ERROR, f'{tally.bad_in_a_row} bad frames in a row, the last: {tally.last_error}')]
        if skipped:
            return [(WARN, f'{skipped} frames skipped, the last: {tally.last_error}')]
        return []

    def _losses(self, stream: CameraStream, tally: Tally) -> list[Problem]:
        problems: list[Problem] = []
        received, dropped, lost, missed = (
            self._new(what, tally.counts[what]) for what in ('received', 'dropped', 'lost', 'missed')
        )
        if stream.source is None:
            return []
        missed = max(missed, lost)
        if missed > dropped and missed > MISSED_SHARE * (received + missed):
            text = f'{missed} images on {stream.source.topic} did not reach the node, {received} did: '
            if lost:
                text += (
                    f'{lost} were lost on the way; start the PUBLISHER with {" and ".join(VARIABLES)} '
                    'set to config/fastdds_images.xml of vss_ros'
                )
            else:
                text += (
                    'newer ones replaced them before this process took them, as on a machine that is '
                    'overloaded, or they could not be read'
                )
            self._node.get_logger().warning(text, **at_most_every(THROTTLE_S))
            problems.append((WARN, text))
        if dropped and stream.settings.node.drop_policy == 'queue':
            text = f'the queue was full and {dropped} images were dropped; raise queue_size or play slower'
            self._node.get_logger().warning(text, **at_most_every(THROTTLE_S))
            problems.append((WARN, text))
        return problems

    def _stuck(self, stream: CameraStream) -> list[Problem]:
        """An engine that does not come back from a frame, which can be told only while it does not."""
        settings = stream.settings.node
        in_work_s = 0.0 if stream.source is None else stream.source.in_work_s
        late_ms = in_work_s * 1e3 - settings.max_allowed_processing_time_ms
        if late_ms <= settings.max_acceptable_consecutive_delay_ms:
            return []
        text = f'a frame has been in work for {in_work_s:.0f} s, and no other can be'
        self._node.get_logger().error(text, **at_most_every(THROTTLE_S))
        return [(ERROR, text)]

    def _silence(self, stream: CameraStream, tally: Tally) -> list[Problem]:
        """Images that come without an answer: a video without a key picture, say, or nothing but bad ones."""
        settings, since_s = stream.settings.node, tally.unanswered_since_s
        if stream.source is None or since_s is None:
            return []
        # How long a frame may be in work is for `_stuck` to say.
        silence_s = time.monotonic() - since_s - stream.source.in_work_s
        period_s = 1 / settings.max_rate if settings.max_rate else 0.0
        if silence_s <= max(settings.input_timeout_s, 2 * period_s):
            return []
        text = f'images come on {stream.source.topic}, and no mask has for {silence_s:.0f} s'
        if settings.image_transport in VIDEO_TRANSPORTS:
            text += '; a video is understood from a key picture on: let the encoder send them more often'
        self._node.get_logger().error(text, **at_most_every(THROTTLE_S))
        return [(ERROR, text)]

    def _slowness(self, stream: CameraStream, tally: Tally) -> list[Problem]:
        slow_for_s = tally.slow_for_s
        if slow_for_s is None:
            return []
        settings = stream.settings.node
        frames = f'every frame of the last {slow_for_s:.1f} s' if slow_for_s >= 0.05 else 'the last frame'
        text = (
            f'{frames} took longer than {settings.max_allowed_processing_time_ms:g} ms; '
            'take a smaller model or a faster engine, or raise key_frame_interval'
        )
        is_error = slow_for_s * 1e3 > settings.max_acceptable_consecutive_delay_ms
        return [(ERROR if is_error else WARN, text)]

    def _restarts(self, stream: CameraStream, tally: Tally) -> list[Problem]:
        """Nothing is propagated where every frame begins a new stream."""
        reasons = tally.restarts
        in_a_row = sum(reasons.values())
        if in_a_row < RESTARTS or not stream.model.propagates:
            return []
        if set(reasons) == {GAP}:
            text = (
                f'each of the last {in_a_row} frames was computed in full, as it came more than '
                f'{stream.settings.stream.max_frame_gap_s:g} s after the one before; let frames come faster '
                '(max_rate, a smaller model, background_key_frames), or raise max_frame_gap_s'
            )
        else:
            counted = ', '.join(f'{reason} ({count})' for reason, count in reasons.items())
            text = (
                f'each of the last {in_a_row} frames was computed in full, as it began a new stream: '
                f'{counted}; let one camera publish, with one clock and one format'
            )
        self._node.get_logger().warning(text, **at_most_every(THROTTLE_S))
        return [(WARN, text)]

    def _geometry(self, stream: CameraStream) -> list[Problem]:
        """Masks without a camera_info though some come; that none comes at all is as it may be."""
        if stream.source is None or not stream.source.camera_infos.misfit:
            return []
        text = (
            f'no camera_info on {stream.source.camera_info_topic} fits the images, so masks go out without '
            f'one: {stream.source.camera_infos.misfit}; '
            'publish that of the images, or remap camera_info to it'
        )
        self._node.get_logger().warning(text, **at_most_every(THROTTLE_S))
        return [(WARN, text)]

    def _background(self, stream: CameraStream) -> list[Problem]:
        """Key frames that do not come out of the background, while frames go on resting on an older one."""
        background, settings = stream.background, stream.settings.node
        if background is None:
            return []
        failed, in_work_s = self._new(BACKGROUND_FAILURES, background.failed), background.in_work_s
        if in_work_s * 1e3 > settings.max_acceptable_consecutive_delay_ms:
            text = (
                f'a key frame has been in work in the background for {in_work_s:.0f} s, and no other can be'
            )
            self._node.get_logger().error(text, **at_most_every(THROTTLE_S))
            return [(ERROR, text)]
        if failed:
            return [(WARN, f'key frames that failed in the background: {failed}; masks rested on older ones')]
        return []

    def _new(self, what: str, total: int) -> int:
        """How much of something came since it was last told."""
        new = total - self._before[what]
        self._before[what] = total
        return new
