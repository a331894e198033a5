"""How well a propagated frame is expected to turn out, before it is computed.

Accuracy is the share of pixels that get the class which computing the frame in full would give them. A
model predicts it from what a stream knows anyway (SIGNALS), by a logistic function whose weights are
fitted to recordings (`vss calibrate`) and kept in model.yaml. Models with a graph that gives the tensor
`expected_accuracy` (DVSNet) need none of this.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from vss_ros.core.errors import ModelError
from vss_ros.core.motion import CELL

if TYPE_CHECKING:
    from vss_ros.core.model_folder import ModelFolder

EXPECTED_ACCURACY = 'expected_accuracy'  # the tensor, and the entry of model.yaml
SIGNALS = {
    'age': 'frames since the key frame',
    'path': 'mean length of the flow, in widths of the image, summed since the key frame',
    'residual': 'mean difference of grey values between an image and the one before carried along the '
    'flow, 0 to 1, summed since the key frame',
    'doubt': 'mean confidence of the key frame minus that of the frame before',
    'corrected': 'share of the cells whose class was corrected on the frame before',
    'distortion': 'mean of the distortion map of the frame before',
}
NEEDS = {'path': 'flow', 'residual': 'flow', 'corrected': 'corrected', 'distortion': 'distortion'}


@dataclass(frozen=True)
class AccuracyModel:
    """Expected accuracy = 1 / (1 + exp(-(bias + sum of weight * signal))).

    Attributes:
        weights: by name of the signal; those of SIGNALS that are missing play no part.
        notes: what it was fitted on and how well it fits.
    """

    bias: float
    weights: Mapping[str, float]
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = set(self.weights) - set(SIGNALS)
        if unknown:
            raise ValueError(f'there is no signal {", ".join(sorted(unknown))}; use {", ".join(SIGNALS)}')
        if not all(math.isfinite(value) for value in (self.bias, *self.weights.values())):
            raise ValueError(f'the bias {self.bias} and the weights {dict(self.weights)} must be finite')

    def predict(self, signals: Mapping[str, float]) -> float:
        """Expected accuracy, 0..1."""
        total = self.bias + sum(weight * signals[name] for name, weight in self.weights.items())
        return 1 / (1 + math.exp(-max(-50.0, min(50.0, total))))


# For models without weights of their own: what every model with a flow knows. Fitted to camvid-evss-lite on
# 989 frames: a motorway, synthetic streets, drives into CamVid's training stills. On clips it was not fitted
# to, the expected accuracy is wrong by 3.0 points and correlates with the true one by 0.69; with weights of
# the model's own, which ask for more, by 1.9 and 0.86.
DEFAULT = AccuracyModel(3.09, {'path': -3.83, 'residual': -1.95})


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
        self.reset()

    def reset(self) -> None:
        """Forgets the stream."""
        self._small: np.ndarray | None = None
        self._start(0.0)
        self.seen = dict(self.signals)

    def _start(self, confidence: float) -> None:
        self._key_confidence = confidence
        self.signals = dict.fromkeys(SIGNALS, 0.0)
        self._marked = dict(self.signals)

    def look(self, image: np.ndarray, read: Callable[[str], np.ndarray]) -> float:
        """Accuracy (0..1) that is expected if this frame is propagated.

        Args:
            image: uint8 (H, W, 3) BGR, of the model's size; `note` saw the one before.
            read: reads a tensor of the step by its name: `flow`, to the frame before, in cells.
        """
        self.signals['age'] += 1
        if self._wanted & {'path', 'residual'}:
            self._move(image, read('flow')[0])
        self.seen = dict(self.signals)
        return self._model.predict(self.seen)

    def note(self, image: np.ndarray, is_key: bool, read: Callable[[str], np.ndarray]) -> None:
        """Takes up what came of the frame.

        Args:
            read: reads a tensor of the step by its name.
        """
        if 'residual' in self._wanted:
            self._small = _small(image)
        confidence = float(read('confidence').mean()) / 255 if 'doubt' in self._wanted else 0.0
        if is_key:
            self._start(confidence)
            return
        self.signals['doubt'] = self._key_confidence - confidence
        for name in ('corrected', 'distortion'):
            if name in self._wanted:
                self.signals[name] = float(read(name).mean())

    def mark(self) -> None:
        """Remembers the newest frame, which is being computed in full in the background."""
        self._marked = dict(self.signals)

    def hand_over(self, read_confidence: Callable[[], np.ndarray]) -> None:
        """Takes the frame that was marked for the key frame, as if it had been from the start.

        The confidence of the frame before stays that of its answer, which did not rest on this key frame.

        Args:
            read_confidence: reads the confidence of that key frame.
        """
        for name in ('age', 'path', 'residual'):
            self.signals[name] -= self._marked[name]
        if 'doubt' in self._wanted:
            confidence = float(read_confidence().mean()) / 255
            self.signals['doubt'] += confidence - self._key_confidence
            self._key_confidence = confidence

    def _move(self, image: np.ndarray, flow: np.ndarray) -> None:
        across, down = flow.astype(np.float32, copy=False)
        self.signals['path'] += float(np.hypot(across, down).mean()) / across.shape[1]
        if 'residual' not in self._wanted or self._small is None:
            return
        rows, columns = np.indices(across.shape, np.float32)
        carried = cv2.remap(
            self._small, columns + across, rows + down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        self.signals['residual'] += float(cv2.absdiff(_small(image), carried).mean()) / 255


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


def _small(image: np.ndarray) -> np.ndarray:
    """Grey values of the 1/4 map, uint8 (h, w)."""
    height, width = image.shape[:2]
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return cv2.resize(grey, (-(-width // CELL), -(-height // CELL)), interpolation=cv2.INTER_AREA)
