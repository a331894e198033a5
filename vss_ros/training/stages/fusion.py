"""Stages `fusion` and `refinement`: STF, then MAR, behind a network of single images that learns no more.

Both see every three neighbouring frames of a clip and are judged by the one that the method labels. In
between, when the second stage begins, the memory is filled from clips of the same data.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from vss_ros.core.described import Described, setting
from vss_ros.core.errors import SettingsError
from vss_ros.core.frame import UNLABELLED
from vss_ros.core.metrics import ConfusionMatrix
from vss_ros.methods.blocks.mar import Mar
from vss_ros.methods.blocks.resize import resize
from vss_ros.methods.blocks.stf import FRAMES
from vss_ros.methods.st_memory import StMemory
from vss_ros.methods.st_memory_building import GOOD, build_memory
from vss_ros.training.clips import Clip
from vss_ros.training.draws import MEMORY, SAMPLE, generator
from vss_ros.training.labelled_video import LabelledVideo
from vss_ros.training.loop import Batch, weights_of
from vss_ros.training.losses import (
    adjustment_of_scores,
    class_balance,
    loss_weight,
    segmentation_losses,
    softness_of_weights,
    squares,
)
from vss_ros.training.propagation import ClipSource, check_clips_are_long_enough
from vss_ros.training.shares import Shares

if TYPE_CHECKING:
    from vss_ros.training.gather import Gathered
    from vss_ros.training.recipe import StageRecipe

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FusionSettings(Described):
    """Sampling and losses. The paper has single triples and plain cross-entropy."""

    batch: int = setting(4, 'clips', range=(1, math.inf))
    frames: int = setting(FRAMES, 'of a clip; every three neighbours are a sample', range=(FRAMES, math.inf))
    recolour: bool = setting(True, 'each clip another way')
    weight_softness: float = softness_of_weights(0.0)
    logit_adjustment: float = adjustment_of_scores()
    jaccard: float = loss_weight(0.0, 'of a Jaccard loss beside the cross-entropy')
    full_size: bool = setting(
        False, 'judge at the size of the image, as the release does, instead of at a half, to save work'
    )
    new_classifier: bool = setting(False, 'begin with another one, as the release does in each of its stages')

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch * (self.frames - FRAMES + 1) < 2:
            raise SettingsError(
                f'batch is {self.batch}, frames is {self.frames}; batch norm needs 2 samples or more of '
                f'{FRAMES} frames'
            )


@dataclass(frozen=True)
class RefinementSettings(FusionSettings):
    """As the fusion."""

    memory_clips: int = setting(
        300,
        'drawn to fill the memory, where there is no video with labels; of one every labelled frame serves, '
        'in order, as in the release, but never mirrored',
        range=(1, math.inf),
    )
    good_per_class: int = setting(
        GOOD, 'features that a prototype in the memory is the mean of', range=(1, math.inf)
    )


class FusionStage:
    """Trains STF, and the classifier with it; nothing is refined yet."""

    name: ClassVar[str] = 'fusion'
    settings_class: ClassVar[type[FusionSettings]] = FusionSettings
    method_class = StMemory
    trained = 'STF'

    def __init__(
        self,
        method: StMemory,
        sources: Sequence[tuple[ClipSource, float]],
        aside: Sequence[Clip],
        frequencies: np.ndarray,
        settings: FusionSettings,
        seed: int = 0,
    ) -> None:
        """`sources`: of clips, with their shares; `aside`: to score on; `frequencies`: of the classes."""
        self.method, self.settings, self.size, self._seed = method, settings, settings.batch, seed
        self._sources, self._aside = Shares(sources), aside
        self._balance = class_balance(frequencies, settings.weight_softness, settings.logit_adjustment)
        method.requires_grad_(False).eval()
        classifier = nn.ModuleList(method.pspnet.get_submodule(name) for name in method.pspnet.classifier)
        if settings.new_classifier:
            for layer in classifier.modules():
                if isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
                    layer.reset_parameters()
        self.module: nn.Module = nn.ModuleDict({self.trained: getattr(method, self.trained)})
        self.module['classifier'] = classifier
        self.module.requires_grad_(True)

    @classmethod
    def create(cls, method: StMemory, data: Gathered, recipe: StageRecipe) -> FusionStage:
        cls._check_method(method)
        sampling, delay = recipe.sampling, method.delay_frames
        data.check_labelled(recipe.shares)
        clips = data.clips(recipe.shares, sampling.recolour, delay)
        check_clips_are_long_enough(recipe.shares, clips, [(sampling.frames, False)])
        aside = data.clips_aside(sampling.frames, delay)
        return cls(method, clips, aside, data.frequencies, sampling, data.seed)

    @classmethod
    def _check_method(cls, method: StMemory) -> None:
        """Raises SettingsError if the method has not what the stage trains."""
        if not method.fuses:
            raise SettingsError(
                f'the method has no STF to train with frames: {method.options["frames"]}; '
                f'leave out the stage {cls.name}'
            )

    def refine(self, fused: Tensor) -> Tensor:
        """What lies between STF and the classifier."""
        return fused

    def batch(self, step: int, samples: Sequence[int] | None = None) -> Batch:
        indices = range(self.size) if samples is None else samples
        rngs = [generator(SAMPLE, self._seed, step, index) for index in indices]
        clips = [self._sources.pick(rng).clip(rng, self.settings.frames) for rng in rngs]
        labels = np.stack([clip.labels for clip in clips])
        if (labelled(self.method, labels) == UNLABELLED).all():
            raise SettingsError(
                f'with frames: {self.method.options["frames"]} the frame {self.method.delay_frames} before '
                'the last of three must have labels, and in these clips it has none'
            )
        return {'images': np.stack([clip.images for clip in clips]), 'labels': labels}

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        scores = self.scores(batch['images'])
        labels = labelled(self.method, batch['labels']).flatten(0, 1)
        if not self.settings.full_size:
            labels = squares(labels)
        return segmentation_losses(scores, labels.long(), self._balance, self.settings.jaccard)

    def scores(self, images: Tensor) -> Tensor:
        """Scores of the labelled frames of clips, uint8 (N, T, H, W, 3) -> (N * (T - 2), K, h, w)."""
        count, frames = images.shape[:2]
        with torch.no_grad():
            features = self.method.features(images.flatten(0, 1))['features'].unflatten(0, (count, frames))
        by_age = [features[:, FRAMES - 1 - age : frames - age].flatten(0, 1) for age in range(FRAMES)]
        return self.method.classify(self.refine(self.method.fuse(*by_age)), *by_age)

    @torch.no_grad()
    def validate(self, average: nn.Module) -> dict[str, float]:
        """`miou` in per cent at full resolution of the clips kept aside; empty if there are none."""
        counts = ConfusionMatrix(self.method.classes)
        device = next(self.method.parameters()).device
        with weights_of(self.module.eval(), average):
            for clip in self._aside:
                if len(clip.images) < FRAMES:
                    continue
                labels = labelled(self.method, clip.labels[None])[0]
                scores = self.scores(torch.from_numpy(clip.images[None]).to(device))
                for label, each in zip(labels, scores.float().split(1), strict=True):
                    counts.update(label, resize(each, label.shape).argmax(1)[0].byte().cpu().numpy())
        return {'miou': 100 * counts.miou()} if counts.counts.any() else {}


class RefinementStage(FusionStage):
    """Trains MAR, and the classifier with it, on what the memory was filled with before."""

    name = 'refinement'
    settings_class = RefinementSettings
    trained = 'MAR'

    @classmethod
    def create(cls, method: StMemory, data: Gathered, recipe: StageRecipe) -> FusionStage:
        """Fills the memory and makes the stage.

        Raises:
            SettingsError: the method has no memory.
            ModelError: a class was never recognised, so nothing can stand for it.
        """
        cls._check_method(method)  # before the memory is filled
        log.info('filling the memory')
        sources = data.clips(recipe.shares, recoloured=False, following=method.delay_frames, mirrored=False)
        clips = clips_to_remember(sources, recipe.sampling.memory_clips, data.seed)
        good = recipe.sampling.good_per_class
        build_memory(method.eval(), triples(method, clips), data.class_set, good)
        return super().create(method, data, recipe)

    @classmethod
    def check(cls, method: StMemory, data: Gathered, recipe: StageRecipe) -> None:
        """As `check_stage` says, without filling the memory.

        Raises:
            SettingsError: the method has no memory, or the data cannot be used.
        """
        super().create(method, data, recipe).batch(0, [0])

    @classmethod
    def _check_method(cls, method: StMemory) -> None:
        if not isinstance(method.MAR, Mar):
            raise SettingsError('the method has no memory to train on; use the option refinement: memory')

    def refine(self, fused: Tensor) -> Tensor:
        return self.method.MAR(fused)


def clips_to_remember(sources: Sequence[tuple[ClipSource, float]], count: int, seed: int) -> Iterator[Clip]:
    """Of videos with labels each labelled frame once; where there are none, `count` clips drawn at random."""
    videos = [source for source, _ in sources if isinstance(source, LabelledVideo)]
    for video in videos:
        yield from video.in_order(FRAMES)
    if not videos:
        shares = Shares(sources)
        for i in range(count):
            rng = generator(MEMORY, seed, i)
            yield shares.pick(rng).clip(rng, FRAMES)


def labelled(method: StMemory, frames: Any) -> Any:
    """Of the frames of clips, (N, T, ...), those that are the labelled one of three, (N, T - 2, ...)."""
    delay = method.delay_frames
    return frames[:, FRAMES - 1 - delay : frames.shape[1] - delay]


def triples(method: StMemory, clips: Iterable[Clip]) -> Iterator[tuple[Tensor, Tensor]]:
    """Clips of three frames as `build_memory` takes them."""
    device = next(method.parameters()).device
    for clip in clips:
        truth = labelled(method, clip.labels[None])[0, 0]
        yield torch.from_numpy(clip.images).to(device), torch.from_numpy(truth).to(device)
