"""Stage `segmenter`: the key-frame network on labelled images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from vss_ros.core.described import Described, setting
from vss_ros.core.errors import SettingsError
from vss_ros.core.metrics import ConfusionMatrix
from vss_ros.methods.blocks.glance import Glimpse
from vss_ros.methods.blocks.image import to_rgb
from vss_ros.methods.blocks.pspnet import PspNet
from vss_ros.methods.blocks.resize import resize
from vss_ros.methods.method import Method
from vss_ros.training import augment
from vss_ros.training.augment import check_crop, check_scales
from vss_ros.training.data import LabelledImages, class_shares
from vss_ros.training.loop import Batch
from vss_ros.training.losses import (
    adjustment_of_scores,
    class_balance,
    loss_weight,
    segmentation_losses,
    softness_of_weights,
    squares,
)
from vss_ros.training.shares import Shares
from vss_ros.training.teacher import answers_of, distillation_loss, load_teachers

if TYPE_CHECKING:
    from vss_ros.training.gather import Gathered
    from vss_ros.training.recipe import StageRecipe

AUXILIARY = 0.4  # weight of the cross-entropy of PSPNet's auxiliary head, as published


@dataclass(frozen=True)
class SegmenterSettings(Described):
    """Sampling and losses of the segmenter stage.

    With a `teacher` the network also learns to give the scores of that model's, on all pixels, so videos
    without labels may have a share; see `training/teacher.py`.
    """

    batch: int = setting(8, 'views, of which batch norm needs two', range=(2, math.inf))
    crop: tuple[int, ...] = setting((), 'height, width of a view; that of the images if not given')
    scales: tuple[float, float] = setting((0.6, 2.0), 'the smallest and the largest one of a view')
    paste: float = setting(0.5, 'share of views that get objects of another view', range=(0, 1))
    paste_classes: tuple[int, ...] = setting((), 'in a recipe by default the `objects` of the class set')
    weight_softness: float = softness_of_weights(1.05)
    logit_adjustment: float = adjustment_of_scores()
    jaccard: float = loss_weight(1.0, 'of the Jaccard loss')
    teacher: str = setting('', 'MODEL/PREFIX as in `start`, or several joined by ` + `')
    teacher_weight: float = loss_weight(1.0, 'of the loss against its answers')
    teacher_temperature: float = setting(2.0, 'softens what both give')

    def __post_init__(self) -> None:
        super().__post_init__()
        check_crop(self.crop)
        check_scales(self.scales)
        if not self.teacher_temperature > 0:
            raise SettingsError(f'teacher_temperature is {self.teacher_temperature}; use more than 0')


class SegmenterStage:
    """Trains the key-frame network on random views of labelled images, from one or several sets in turn."""

    name = 'segmenter'
    settings_class = SegmenterSettings
    method_class: ClassVar[type[Method]] = Method

    def __init__(
        self,
        network: nn.Module,
        classes: int,
        sets: Sequence[tuple[LabelledImages, float]],
        aside: LabelledImages,
        settings: SegmenterSettings,
        seed: int = 0,
        teacher: nn.Module | None = None,
        align_corners: bool = False,
    ) -> None:
        """`sets`: images and the share of every batch drawn from them; labelled unless there is a teacher.

        `align_corners`: how the method enlarges scores, see `resize`.
        """
        self._align_corners = align_corners
        self.module, self._classes, self._settings, self._seed = network, classes, settings, seed
        network.requires_grad_(True)  # a correction trained before has frozen it
        self.size = settings.batch
        self._sets, self._aside = Shares(sets), aside
        self._teacher = teacher
        frequencies = np.zeros(classes)
        if settings.weight_softness:  # counting takes a look at every label
            counted = (class_shares(images.pixels, classes) for images in self._sets.sources)
            frequencies = next((found for found in counted if found.any()), frequencies)
        self._balance = class_balance(frequencies, settings.weight_softness, settings.logit_adjustment)

    @classmethod
    def create(cls, method: Method, data: Gathered, recipe: StageRecipe) -> SegmenterStage:
        origin = recipe.sampling.teacher
        teacher = load_teachers(origin, data.class_set) if origin else None
        stills = data.stills(recipe.shares, labelled=teacher is None)
        network = method.get_submodule(method.key_network)
        aligned = method.align_corners
        return cls(network, data.classes, stills, data.aside, recipe.sampling, data.seed, teacher, aligned)

    def batch(self, step: int, samples: Sequence[int] | None = None) -> Batch:
        views = [self._view(step, index) for index in (range(self.size) if samples is None else samples)]
        images, labels = zip(*views, strict=True)
        return {'images': np.stack(images), 'labels': np.stack(labels)}

    def _view(self, step: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([self._seed, step, index])
        chosen = self._sets.pick(rng)
        image, label = self._window(rng, chosen)
        if rng.random() < self._settings.paste:
            other = self._window(rng, chosen)
            augment.paste_objects(rng, image, label, *other, self._settings.paste_classes)
        return augment.recolour(rng, image), label

    def _window(self, rng: np.random.Generator, chosen: LabelledImages) -> tuple[np.ndarray, np.ndarray]:
        return augment.random_view(rng, chosen, self._settings.scales, self._settings.crop)

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        rgb = to_rgb(batch['images'])
        if isinstance(self.module, PspNet):
            scores, auxiliary = self.module.with_auxiliary(rgb)
        else:
            scores, auxiliary = scores_of(self.module, rgb), None
        taught = None if self._teacher is None else answers_of(self._teacher, rgb)
        with torch.autocast(scores.device.type, enabled=False):
            # Half resolution keeps poles two pixels wide at a quarter of the cost of full size.
            labels = batch['labels']
            labels = (labels[:, ::2, ::2] if self._align_corners else squares(labels)).long()
            terms = segmentation_losses(
                self._enlarged(scores, rgb), labels, self._balance, self._settings.jaccard
            )
            if auxiliary is not None:
                loss = segmentation_losses(auxiliary, labels, self._balance, 0.0)['cross_entropy']
                terms['auxiliary'] = AUXILIARY * loss
            if taught is not None:
                loss = distillation_loss(scores, taught, self._settings.teacher_temperature)
                terms['teacher'] = self._settings.teacher_weight * loss
            return terms

    def _enlarged(self, scores: Tensor, rgb: Tensor) -> Tensor:
        """Scores at the pixels of the labels, every second one, where the losses would not put them there."""
        if not self._align_corners:
            return scores
        return resize(scores.float(), rgb.shape[2:], align_corners=True)[:, :, ::2, ::2]

    def validate(self, average: nn.Module) -> dict[str, float]:
        if not len(self._aside):
            return {}
        return mean_iou(average, self._aside, self._classes, self._align_corners)


def scores_of(segmenter: nn.Module, rgb: Tensor) -> Tensor:
    """Its scores, (N, K, any height, any width); a glance gives more than those."""
    found = segmenter(rgb)
    return found.scores if isinstance(found, Glimpse) else found


@torch.no_grad()
def mean_iou(
    segmenter: nn.Module, images: LabelledImages, classes: int, align_corners: bool = False
) -> dict[str, float]:
    """`miou` in per cent at full resolution, and `iou_<id>` of each class that occurs."""
    device = next(segmenter.parameters()).device
    counts = ConfusionMatrix(classes)
    for image, label in zip(images.images, images.labels, strict=True):
        scores = scores_of(segmenter, to_rgb(torch.from_numpy(image)[None].to(device)))
        mask = resize(scores.float(), label.shape, align_corners).argmax(1)[0].byte()
        counts.update(label, mask.cpu().numpy())
    each = {f'iou_{i}': 100 * float(iou) for i, iou in enumerate(counts.iou()) if iou == iou}
    return {'miou': 100 * counts.miou(), **each}
