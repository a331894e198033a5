"""How well a propagated frame is expected to turn out, before it is computed.

Accuracy is the share of pixels that get the class which computing the frame in full would give them. A
model predicts it from what a stream knows anyway (SIGNALS), by a logistic function whose weights are
fitted to recordings (`vss calibrate`) and kept in model.yaml. Models with a graph that gives the tensor
`expected_accuracy` (DVSNet) need none of this.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vss_ros.core.errors import ModelError
from vss_ros.core.model.accuracy_model import DEFAULT, EXPECTED_ACCURACY, NEEDS, SIGNALS, AccuracyModel
from vss_ros.core.motion.dis import cells_of
from vss_ros.core.motion.followed import difference

if TYPE_CHECKING:
    from vss_ros.core.model.folder import ModelFolder


class Expectation:
    """Follows one stream and says how well its next frame would be propagated.

    Attributes:
        stage: of the propagated step, after which enough is known to look.
        seen: the signals that the last prediction was made from.

    Raises:
        ModelError: the model does not give a signal that its accuracy is predicted from.
    """

    def __init__(self, model: ModelFolder) -> None:
        self._model = accuracy_model_of(model)
        self._wanted = set(self._model.weights)
        self.stage = 'flow' if 'flow' in model.steps['propagated'] else model.steps['propagated'][0]
        self._newest: np.ndarray | None = None
        self._start(0.0)
        self.seen = dict(self.signals)

    def _start(self, confidence: float) -> None:
        self._key_confidence = confidence
        self.signals = dict.fromkeys(SIGNALS, 0.0)
        self._anchor = self._marked = self._here()

    def look(self, image: np.ndarray, read: Callable[[str], np.ndarray]) -> float:
        """Accuracy (0..1) that is expected if this frame is propagated.

        Args:
            image: uint8 (H, W, 3) BGR, of the model's size; `note` saw the one before.
            read: reads a tensor of the step by its name: `flow`, to the anchor, in cells.
        """
        self.signals['age'] += 1
        self._see(image)
        if self._wanted & {'path', 'residual'}:
            self._move(read('flow')[0])
        self.seen = dict(self.signals)
        return self._model.predict(self.seen)

    def note(
        self, image: np.ndarray, is_key: bool, is_anchor: bool, read: Callable[[str], np.ndarray]
    ) -> None:
        """Takes up what came of the frame.

        Args:
            is_anchor: whether later frames are warped from this one.
            read: reads a tensor of the step by its name.
        """
        if is_key:  # which may not have been looked at
            self._see(image)
        confidence = float(read('confidence').mean()) / 255 if 'doubt' in self._wanted else 0.0
        if is_key:
            self._start(confidence)
            return
        self.signals['doubt'] = self._key_confidence - confidence
        if not is_anchor:
            return
        for name in ('corrected', 'distortion'):
            if name in self._wanted:
                self.signals[name] = float(read(name).mean())
        self._anchor = self._here()

    def mark(self) -> None:
        """Remembers the newest frame, which is being computed in full in the background."""
        self._marked = self._here()

    def hand_over(self, read_confidence: Callable[[], np.ndarray]) -> None:
        """Takes the frame that was marked for the key frame, as if it had been from the start.

        The confidence of the frame before stays that of its answer, which did not rest on this key frame.

        Args:
            read_confidence: reads the confidence of that key frame.
        """
        for name in ('age', 'path', 'residual'):
            self.signals[name] -= self._marked.signals[name]
        self.signals['corrected'] = self.signals['distortion'] = 0.0  # those seen were behind the one before
        self._anchor = _Place(dict.fromkeys(SIGNALS, 0.0), self._marked.cells)
        if 'doubt' in self._wanted:
            confidence = float(read_confidence().mean()) / 255
            self.signals['doubt'] += confidence - self._key_confidence
            self._key_confidence = confidence

    def _here(self) -> _Place:
        return _Place(dict(self.signals), self._newest)

    def _see(self, image: np.ndarray) -> None:
        if 'residual' in self._wanted:
            self._newest = cells_of(image)

    def _move(self, flow: np.ndarray) -> None:
        anchor, cells = self._anchor
        across, down = flow.astype(np.float32, copy=False)
        length = float(np.hypot(across, down).mean()) / across.shape[1]
        self.signals['path'] = anchor['path'] + length
        if self._newest is None or cells is None:
            return
        unexplained = difference(flow[None], self._newest, cells)
        self.signals['residual'] = anchor['residual'] + float(unexplained.mean()) / 255


class _Place(NamedTuple):
    """A frame of the stream: what the signals were there, and its cells where they are wanted."""

    signals: dict[str, float]
    cells: np.ndarray | None


def accuracy_graph_of(model: ModelFolder) -> str | None:
    """The stage of the propagated step that gives `expected_accuracy` itself, if there is one."""
    stages = (stage for stage in model.steps.get('propagated', ()) if stage in model.graphs)
    return next((stage for stage in stages if EXPECTED_ACCURACY in model.graphs[stage].outputs), None)


def signals_of(model: ModelFolder) -> list[str]:
    """Names of the signals that a stream of this model knows."""
    stages = model.steps.get('propagated', ())
    graphs = [model.graphs[stage] for stage in stages if stage in model.graphs]
    given = {*stages, *(name for graph in graphs for name in graph.outputs)}
    return [signal for signal in SIGNALS if NEEDS.get(signal) in (None, *given)]


def accuracy_model_of(model: ModelFolder) -> AccuracyModel:
    """What predicts the accuracy of this model's propagated frames: its own weights, or DEFAULT.

    Raises:
        ModelError: it needs a signal that the model does not give.
    """
    found, known = model.expected_accuracy or DEFAULT, signals_of(model)
    for signal in found.weights:
        if signal not in known:
            raise ModelError(
                f'scheduler adaptive needs {signal!r} ({SIGNALS[signal]}), but {model.name} gives no '
                f'{NEEDS[signal]}; fit others with `vss calibrate`, or use scheduler fixed'
            )
    return found
