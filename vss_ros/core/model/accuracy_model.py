"""What predicts how well a frame will be propagated: the entry `expected_accuracy` of model.yaml.

Accuracy is the share of pixels that get the class which computing the frame in full would give them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

EXPECTED_ACCURACY = 'expected_accuracy'  # the tensor, and the entry of model.yaml
SIGNALS = {
    'age': 'frames since the key frame',
    'path': 'mean length of the flow, in widths of the image, summed since the key frame',
    'residual': 'mean difference of grey values between an image and the one it is warped from, carried '
    'along the flow, 0 to 1, summed since the key frame',
    'doubt': 'mean confidence of the key frame minus that of the frame before',
    'corrected': 'share of the cells whose class was changed by the last correction',
    'distortion': 'mean of the last distortion map',
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

    def as_yaml(self) -> dict[str, Any]:
        return {'bias': self.bias, 'weights': dict(self.weights), **self.notes}

    def predict(self, signals: Mapping[str, float]) -> float:
        """Expected accuracy, 0..1; not a number where a signal is none."""
        total = self.bias + sum(weight * signals[name] for name, weight in self.weights.items())
        if math.isnan(total):  # which min and max would make a promise of
            return total
        return 1 / (1 + math.exp(-max(-50.0, min(50.0, total))))


# For models without weights of their own: what every model with a flow knows. Fitted to camvid-evss-lite on
# some 1000 frames: a motorway, synthetic streets, drives into CamVid's training stills. Weights of the
# model's own ask for more and are better, see docs/methods.md.
DEFAULT = AccuracyModel(3.09, {'path': -3.83, 'residual': -1.95})
