"""Segments one camera stream: decides, runs the stages, remembers the state, returns the result."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from vss_ros.core.engines import Engine
from vss_ros.core.errors import ModelError
from vss_ros.core.frame import Answer, Frame, Segmentation
from vss_ros.core.model.accuracy_model import EXPECTED_ACCURACY
from vss_ros.core.model.folder import ModelFolder
from vss_ros.core.model.steps import AGE, CARRIED, HOST_FLOWS
from vss_ros.core.model.walk import age_tensor
from vss_ros.core.motion import make_motion
from vss_ros.core.motion.followed import FollowedMotion
from vss_ros.core.resize import fit
from vss_ros.core.settings import StreamSettings
from vss_ros.core.stream.answers import Owed, answer_to, expected_accuracy_in, read
from vss_ros.core.stream.background import BackgroundKeyFrames
from vss_ros.core.stream.expected_accuracy import Expectation, accuracy_graph_of
from vss_ros.core.stream.requests import Requests
from vss_ros.core.stream.resets import ERROR, FIRST_FRAME, GAP, REQUESTED, why_unrelated
from vss_ros.core.stream.scheduler import Scheduler, make_scheduler
from vss_ros.core.stream.stopwatch import Stopwatch

_log = logging.getLogger(__name__)


class VideoSegmenter(AbstractContextManager['VideoSegmenter']):
    """Segments one camera stream. Make one per stream: it is cheap, the engine is what costs.

    It takes each image as a whole; where `settings` may ask for regions use
    `make_segmenter` in `open_segmenter.py`.

    `step`, or `answers` and `flush`, belong to one thread, which alone writes the state and the settings.
    `reset`, `request_key_frame` and `configure` may be used from any other; they take effect with the next
    frame.

    Attributes:
        settings: those of the newest frame.
        closes_engine: whether `close`, or the end of a `with`, closes the engine too; otherwise others may
            share it.
        resets: how often a new stream began, by reason.
        given_up: frames without an answer, because the engine failed while it was owed.
        background: computes the key frames beside the stream, if that is wanted and the model propagates.

    Raises:
        EngineError: key frames are wanted in the background, and the engine cannot be used by two threads.
        ModelError: this model cannot be run with the settings.
    """

    closes_engine = False

    def __init__(self, model: ModelFolder, engine: Engine, settings: StreamSettings | None = None) -> None:
        self.model = model
        self.engine = engine
        self.settings = settings or StreamSettings()
        self.resets: Counter[str] = Counter()
        self.given_up = 0
        self._check_correction(self.settings)
        self._scheduler: Scheduler = make_scheduler(self.settings)
        self._accuracy_graph = accuracy_graph_of(model)
        self.expectation = self._make_expectation(self.settings)
        self._motion = _host_motion(model, self.settings)
        self.background: BackgroundKeyFrames | None = None
        if self.settings.background_key_frames and not model.computes_all_in_full:
            self.background = BackgroundKeyFrames(model, engine, self.settings.background_delay_frames)
        self._due_in_background = False
        self._requests = Requests()
        self._wanted_reset: str | None = None  # what was taken of them, as long as it is not done
        self._wants_key = False
        self._state: dict[str, Any] = {}
        self._previous: Frame | None = None
        self._owed = self._nothing_owed()
        self._age = 0
        self._since_anchor = 0  # frames since the one that results are warped from
        self._key_stamp_ns = 0

    def check(self, settings: StreamSettings) -> None:
        """Raises ModelError if `configure` could not take these settings."""
        self._check_correction(settings)
        self._make_expectation(settings)

    def configure(self, settings: StreamSettings) -> None:
        """Takes new settings for the frames to come.

        Those that are not live stay as they are.

        Raises:
            ModelError: this model cannot be run with them; nothing changes then.
        """
        settings = self.settings.changed_to(settings)
        self.check(settings)
        self._requests.ask(settings=settings)

    def reset(self, reason: str = REQUESTED) -> None:
        """Makes the next frame the first of a new stream."""
        self._requests.ask(reset_reason=reason)

    def close(self) -> None:
        """Ends the work in the background, if there is any. The segmenter is not used afterwards.

        Raises:
            EngineError: it does not end, see `BackgroundKeyFrames.close`.
        """
        if self.background is not None:
            self.background.close()
        if self.closes_engine:
            self.engine.close()

    def __exit__(self, *error: object) -> None:
        self.close()

    def request_key_frame(self) -> None:
        """Makes the next frame a key frame, never in the background."""
        self._requests.ask(key_frame=True)

    def step(self, frame: Frame) -> Segmentation:
        """Segments the next frame of the stream, with a model whose results are not late.

        An error leaves the segmenter usable: the next frame starts a new stream.

        Raises:
            ModelError: the model's results are late; they are had by `answers` and `flush`.
        """
        if self.model.delay_frames:
            raise ModelError(
                f'{self.model.name} gives its results {self.model.delay_frames} frames late; '
                'ask for answers(frame), and at the end for flush(), instead of step(frame)'
            )
        [answer] = self.answers(frame)
        return answer.segmentation

    def answers(self, frame: Frame) -> Iterator[Answer]:
        """Segments the next frame of the stream and gives what is known now, the oldest frame first.

        Every frame is answered once: at once, or `delay_frames` frames later if the model needs to see
        those first. Where a new stream begins, the answers that the old one owes come first, see `flush`.
        The work is done as the answers are taken, so take them all.

        An error leaves the segmenter usable: the next frame starts a new stream. Answers that were owed
        are given up and counted.
        """
        self._take_requests()
        reason = self._new_stream_reason(frame)
        if reason is not None:
            yield from self.flush()
            self._wanted_reset = None  # not before: who takes the answers may stop
            self.resets[reason] += 1
            self._forget()
        try:
            yield from self._step(frame, reason)
        except Exception:
            self._give_up()
            raise

    def flush(self) -> Iterator[Answer]:
        """Gives the answers that are owed without waiting for more frames: the newest one stands for them.

        The stream is as before, except that these frames are not answered again. So a live stream may
        flush in a pause, and go on.
        """
        newest, state = self._previous, self._state
        if newest is None or not any(self._owed):
            return
        try:
            for number in range(len(self._owed)):
                clock = Stopwatch()
                image = fit(newest.image, self.model.image_size)
                clock.lap('resize')
                tensors: dict[str, Any] = {'image': image[None], AGE: age_tensor(self._age), **state}
                self._run('propagated', tensors, clock)
                state = self.model.state_of(tensors)
                if (owed := self._owed[number]) is not None:
                    answer = answer_to(
                        owed, tensors, self.engine, self.settings, self.model.image_size, clock
                    )
                    self._owed[number] = None  # not before: it may fail
                    yield answer
        except Exception:
            self._give_up()
            raise

    def _step(self, frame: Frame, reset_reason: str | None) -> Iterator[Answer]:
        clock = Stopwatch()
        image = fit(frame.image, self.model.image_size)
        clock.lap('resize')
        self._take_over()
        step = 'key' if self._is_key() else self._step_between()
        given: dict[str, Any] = {'image': image[None], AGE: age_tensor(self._age + 1)}
        if self._motion is not None:
            given['flow'] = self._motion.update(image, step != 'key', frame.coded, stays=True)
            step = 'key' if given['flow'] is None else step
            clock.lap('flow')
        step, tensors = self._compute(step, given, image, clock)
        self._remember(frame, step, image, given, tensors)
        is_key, age_ns = self._age == 0, frame.stamp_ns - self._key_stamp_ns
        self._owed.append(Owed(frame, is_key, step == CARRIED, self._age, age_ns, reset_reason))
        owed = self._owed.popleft()
        if owed is not None:
            yield answer_to(owed, tensors, self.engine, self.settings, self.model.image_size, clock)

    def _compute(
        self, step: str, given: Mapping[str, Any], image: np.ndarray, clock: Stopwatch
    ) -> tuple[str, dict[str, Any]]:
        """Runs the step, or the key step after all; gives which it was, and all tensors."""
        tensors = {**given, **self._state}
        begun = list(tensors)
        if step != 'key':
            if self._propagate(step, image, tensors, clock):
                return step, tensors
            tensors = {name: tensors[name] for name in begun}  # by now on the device, those that were not
        self._run('key', tensors, clock)
        return 'key', tensors

    def _remember(
        self,
        frame: Frame,
        step: str,
        image: np.ndarray,
        given: Mapping[str, Any],
        tensors: dict[str, Any],
    ) -> None:
        """What the frames to come need to know of this one."""
        is_key = step == 'key' or self.model.computes_all_in_full
        self._previous = frame
        if step == CARRIED:
            self._since_anchor += 1
        else:
            self._take_as_anchor(tensors)
        if self.expectation is not None:
            is_anchor = step != CARRIED
            self.expectation.note(image, is_key, is_anchor, lambda name: read(tensors[name], self.engine))
        self._scheduler.took(is_key or self._due_in_background)
        if is_key:
            self._age, self._key_stamp_ns = 0, frame.stamp_ns
        else:
            self._age += 1
        self._hand_to_background(given, frame, is_key)

    def _run(self, step: str, tensors: dict[str, Any], clock: Stopwatch) -> None:
        """Runs the stages of a step; each adds its tensors."""
        for stage in self.model.steps[step]:
            self._run_stage(stage, tensors, clock)

    def _run_stage(self, stage: str, tensors: dict[str, Any], clock: Stopwatch) -> None:
        if stage == 'flow' and self._motion is not None:
            return
        tensors |= self.engine.run(stage, tensors)
        clock.lap(stage)

    def _propagate(self, step: str, image: np.ndarray, tensors: dict[str, Any], clock: Stopwatch) -> bool:
        """Runs such a step; False if a stage showed that a key frame is due, and the rest was left."""
        asked_after = self._accuracy_graph if self.expectation is None else self.expectation.stage
        for stage in self.model.steps[step]:
            self._run_stage(stage, tensors, clock)
            if stage != asked_after:
                continue
            if self.expectation is not None:
                expected = self.expectation.look(image, lambda name: read(tensors[name], self.engine))
                tensors[EXPECTED_ACCURACY] = np.array(expected, np.float32)
                clock.lap('expectation')
            if self._is_due_now(expected_accuracy_in(tensors, self.engine)):
                return False
        return True

    def _step_between(self) -> str:
        """The step of a frame that is no key frame: between corrections it is only carried along."""
        interval = self.model.corrects_every(self.settings.correction_interval)
        return CARRIED if self._since_anchor + 1 < interval else 'propagated'

    def _take_as_anchor(self, tensors: dict[str, Any]) -> None:
        """Later frames are warped from this one, until another takes its place."""
        self._state, self._since_anchor = self.model.state_of(tensors), 0
        if self._motion is not None:
            self._motion.anchor()

    def _take_requests(self) -> None:
        """Takes what was asked since the frame before."""
        asked = self._requests.take()
        self._wanted_reset = asked.reset_reason or self._wanted_reset
        self._wants_key |= asked.key_frame
        settings = asked.settings or self.settings
        if settings.schedule != self.settings.schedule:  # a new one forgets how many key frames there were
            self._scheduler, self.expectation = make_scheduler(settings), self._make_expectation(settings)
            self._wants_key |= self.expectation is not None  # which follows a stream from a key frame on
        self.settings = settings

    def _is_key(self) -> bool:
        requested, self._wants_key = self._wants_key, False
        if self._previous is None or not self.model.propagates:
            return True
        return not self.model.computes_all_in_full and (requested or self._is_due_now())

    def _is_due_now(self, expected_accuracy: float | None = None) -> bool:
        """Whether the frame has to be computed in full now; that it is due in the background is noted."""
        is_due = self._scheduler.is_key(self._age + 1, expected_accuracy)
        if self.background is None:
            return is_due
        self._due_in_background |= is_due and not self.background.is_busy
        return False

    def _hand_to_background(self, given: Mapping[str, Any], frame: Frame, is_key: bool) -> None:
        """A frame that was due is computed in full beside the stream, unless it was already."""
        is_due, self._due_in_background = self._due_in_background, False
        if self.background is None:
            return
        if is_key:
            self.background.drop()
        elif is_due:
            self.background.begin(given, frame.stamp_ns)
            if self._motion is not None:
                self._motion.mark()
            if self.expectation is not None:
                self.expectation.mark()
        else:
            self.background.follow()

    def _take_over(self) -> None:
        """Goes on from a key frame that was computed in the background, once it is there."""
        if self.background is None:
            return
        try:
            handover = self.background.take()
        except Exception as error:  # whatever it was: in the foreground it is an error, or over
            _log.warning('a key frame in the background failed; the next one is not there: %s', error)
            self._wants_key = True
            return
        if handover is not None:
            self._state = handover.state
            self._age, self._key_stamp_ns = handover.age_frames, handover.stamp_ns
            self._since_anchor = handover.age_frames
            if self._motion is not None:
                self._motion.anchor_at_mark()
            if self.expectation is not None:
                self.expectation.hand_over(lambda: read(handover.confidence, self.engine))

    def _new_stream_reason(self, frame: Frame) -> str | None:
        """Why the temporal state cannot be used for this frame, or None."""
        previous = self._previous
        if self._wanted_reset is not None:
            return self._wanted_reset
        if previous is None:
            return FIRST_FRAME
        if frame.stamp_ns - previous.stamp_ns > self.settings.max_frame_gap_s * 1e9:
            return GAP
        return why_unrelated(previous, frame)

    def _forget(self) -> None:
        """The whole story of starting over."""
        self._state = {}
        self._previous = None
        self._owed = self._nothing_owed()
        self._due_in_background = False
        self._age = self._since_anchor = 0
        if self.background is not None:
            self.background.drop()
        if self._motion is not None:
            self._motion.reset()

    def _check_correction(self, settings: StreamSettings) -> None:
        if settings.correction_interval > 1 and CARRIED not in self.model.steps:
            raise ModelError(
                f'correction_interval is {settings.correction_interval}, but {self.model.name} has no step '
                'for frames that are not corrected; set it to 0 or 1'
            )

    def _make_expectation(self, settings: StreamSettings) -> Expectation | None:
        """What predicts how well a frame would be propagated, where that is asked and no graph says it."""
        decides = not self.model.computes_all_in_full and settings.scheduler == 'adaptive'
        return Expectation(self.model) if decides and self._accuracy_graph is None else None

    def _nothing_owed(self) -> deque[Owed | None]:
        """The first results of a stream whose results are late belong to frames before it."""
        return deque([None] * self.model.delay_frames)

    def _give_up(self) -> None:
        """After an error of the engine nothing of the stream is to be trusted."""
        self.given_up += sum(owed is not None for owed in self._owed)
        self._owed = self._nothing_owed()
        self.reset(ERROR)


def _host_motion(model: ModelFolder, settings: StreamSettings) -> FollowedMotion | None:
    """The estimator that gives `flow` beside the engine, or None where a graph does or none is needed."""
    kind = model.flow_of(settings.motion)
    if kind == 'network' and 'flow' not in model.graphs and model.propagates:
        raise ModelError(f'{model.name} has no flow network; use motion: {model.flow} (what it was made for)')
    if kind not in HOST_FLOWS or 'flow' not in model.steps.get('propagated', ()):
        return None
    return make_motion(kind)
