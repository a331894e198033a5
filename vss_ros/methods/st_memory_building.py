"""Fills the memory of STF+MAR from labelled clips, once the rest of the network is trained."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from vss_ros.core.classes import ClassSet
from vss_ros.core.errors import ModelError
from vss_ros.methods.blocks.mar import Mar
from vss_ros.methods.blocks.resize import resize
from vss_ros.methods.st_memory import STRIDE, StMemory

GOOD = 10  # features that a prototype is the mean of, K_H


class Sample(NamedTuple):
    """A feature and how sure the network was; sorts by score, and equals so that the first come stays."""

    score: float
    tie: int
    feature: Tensor  # (d,)


class ClassSamples:
    """The hardest and the best recognised features of one class among those offered so far.

    The streaming rule of the release: each list has a threshold, which moves from the first sample on,
    and what the hard list has taken is never offered to the good one.
    """

    def __init__(self, hard: int, good: int = GOOD) -> None:
        self.hard: list[Sample] = []  # ascending scores
        self.good: list[Sample] = []
        self._most_hard, self._most_good = hard, good
        self._arrivals = 0

    @property
    def bounds(self) -> tuple[float, float]:
        """Scores below the first and scores above the second are taken; they only move apart."""
        return (
            self.hard[-1].score if self.hard else 1.0,
            self.good[0].score if self.good else 0.0,
        )

    def offer(self, score: float, feature: Tensor) -> None:
        """Take one correctly classified cell's probability and feature (d,), or leave it."""
        hard_below, good_above = self.bounds
        self._arrivals += 1
        if score < hard_below:
            insort(self.hard, Sample(score, self._arrivals, feature))
            del self.hard[self._most_hard :]
        elif score > good_above:
            insort(self.good, Sample(score, -self._arrivals, feature))
            del self.good[: -self._most_good]


class MemoryBuilder:
    """Collects keys and prototypes from fused features and what the classifier makes of them.

    Args:
        classes: number of classes K.
        keys_per_class: hard features to keep.
        good_per_class: features to keep of which a prototype is the mean.
    """

    def __init__(self, classes: int, keys_per_class: int, good_per_class: int = GOOD) -> None:
        self.keys_per_class = keys_per_class
        self.samples = [ClassSamples(keys_per_class, good_per_class) for _ in range(classes)]

    @torch.no_grad()
    def add(self, fused: Tensor, scores: Tensor, truth: Tensor) -> None:
        """Offer the cells of one frame that are classified right, row by row.

        Args:
            fused: output of STF, (d, h, w).
            scores: class logits, (K, h, w).
            truth: class ids, uint8 (h * 8, w * 8); 255 is ignored.
        """
        best, labels = scores.softmax(0).max(0)
        right = labels == truth[::STRIDE, ::STRIDE]
        for class_id, samples in enumerate(self.samples):
            hard_below, good_above = samples.bounds
            wanted = (best < hard_below) | (best > good_above)  # a quick first look
            for row, column in (right & wanted & (labels == class_id)).nonzero().tolist():
                samples.offer(float(best[row, column]), fused[:, row, column].clone())

    def memory(self, classes: ClassSet) -> tuple[Tensor, Tensor]:
        """Keys (K * keys_per_class, d), hardest first, and prototypes (K, d).

        Of a short list the keys are repeated, as in the release; a prototype is the mean of what there is,
        while the release repeats entries there too, and so weighs some of them more.

        Raises:
            ModelError: a class was never recognised, so nothing can stand for it; it is named.
        """
        absent = [classes.names[i] for i, kept in enumerate(self.samples) if not (kept.hard and kept.good)]
        if absent:
            raise ModelError(
                f'too few cells of {", ".join(absent)} were recognised to remember them; '
                'train longer, or on clips that show these classes'
            )
        keys, prototypes = [], []
        for kept in self.samples:
            # A short list repeats itself.
            keys += [kept.hard[i % len(kept.hard)].feature for i in range(self.keys_per_class)]
            prototypes.append(torch.stack([sample.feature for sample in kept.good]).mean(0))
        return torch.stack(keys), torch.stack(prototypes)


@torch.no_grad()
def build_memory(
    method: StMemory,
    clips: Iterable[tuple[Tensor, Tensor]],
    classes: ClassSet,
    good_per_class: int = GOOD,
) -> None:
    """Fill the memory of a trained method; its image network, STF and classifier stay as they are.

    Args:
        method: with `refinement: memory`, in eval mode.
        clips: three images in the order of time, uint8 (3, H, W, 3) BGR, and the truth, uint8 (H, W), of
            the one that the method labels: the middle one if `frames` is published, else the last.
        good_per_class: see `MemoryBuilder`.
    Raises:
        ModelError: the method has no memory, or a class was never recognised.
    """
    if not isinstance(method.MAR, Mar):
        raise ModelError('the method has no memory to fill; build it with refinement memory')
    builder = MemoryBuilder(method.classes, method.options['keys_per_class'], good_per_class)
    for images, truth in clips:
        by_age = method.features(images)['features'].split(1)[::-1]
        fused = method.fuse(*by_age)
        scores = resize(method.classify(fused, *by_age), fused.shape[2:])
        builder.add(fused[0], scores[0], truth)
    method.MAR.remember(*builder.memory(classes))
