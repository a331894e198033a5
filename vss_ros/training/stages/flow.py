"""Stage `flow`: the flow network, on pairs of images.

Of most the flow is exactly known: drawn streets bring theirs; a real image gets a smooth random field and is
looked at through it. Neighbouring frames of a video without labels have none; there the images judge it, see
`training/photometric.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn

from vss_ros.core.described import Described, setting
from vss_ros.core.errors import SettingsError
from vss_ros.core.frame import CELL
from vss_ros.methods.blocks.image import to_rgb
from vss_ros.methods.method import Method
from vss_ros.training.augment import check_crop, random_place, recolour_clip
from vss_ros.training.clips import Clip, to_cells
from vss_ros.training.data import LabelledImages
from vss_ros.training.loop import Batch
from vss_ros.training.losses import loss_weight
from vss_ros.training.photometric import bending, in_cells, photometric_difference, visible
from vss_ros.training.propagation import ClipSource, check_clips_are_long_enough
from vss_ros.training.recipe import STREETS, StageRecipe
from vss_ros.training.shares import Shares

if TYPE_CHECKING:
    from vss_ros.training.gather import Gathered


@dataclass(frozen=True)
class FlowSettings(Described):
    """Sampling of the flow stage."""

    batch: int = setting(8, 'pairs', range=(1, math.inf))
    crop: tuple[int, ...] = setting((), 'height, width of the pairs; that of the images if not given')
    shift: float = setting(6.0, 'deviation of the shift of a random field, in pixels', range=(0, math.inf))
    growth: float = setting(0.04, 'deviation of its change of scale', range=(0, math.inf))
    bumps: float = setting(3.0, 'deviation of its local motion, in pixels', range=(0, math.inf))
    photometric: float = loss_weight(10.0, 'of how pairs of a video differ along the flow')
    smoothness: float = loss_weight(3.0, 'of how their flow bends')

    def __post_init__(self) -> None:
        super().__post_init__()
        check_crop(self.crop)


class Pair(NamedTuple):
    """Two images, uint8 (H, W, 3), and the flow from the first to the second, float32 (2, h, w), in cells."""

    image: np.ndarray
    previous: np.ndarray
    flow: np.ndarray | None  # if known


Source = LabelledImages | Sequence[Clip] | ClipSource


class FlowStage:
    """Trains `flownet` on random pairs: towards the least end-point error, in cells of the 1/4 map.

    Where the flow is not known, towards the least photometric difference and an even flow.
    """

    name = 'flow'
    settings_class = FlowSettings
    method_class = Method

    def __init__(
        self,
        flownet: nn.Module,
        stills: Sequence[tuple[LabelledImages, float]],
        clips: Sequence[Clip],
        clip_share: float,
        settings: FlowSettings,
        seed: int = 0,
        videos: Sequence[tuple[ClipSource, float]] = (),
    ) -> None:
        """`stills` and their shares; `clips` with flow and their `clip_share`; `videos` and theirs."""
        self.module, self._settings, self._seed = flownet, settings, seed
        flownet.requires_grad_(True)  # a stage before may have frozen it
        self.size = settings.batch
        self._has_videos = bool(videos)
        self._sources: Shares[Source] = Shares([*stills, (clips, clip_share if clips else 0.0), *videos])

    @classmethod
    def create(cls, method: Method, data: Gathered, recipe: StageRecipe) -> FlowStage:
        flownet = getattr(method, 'flownet', None)
        if flownet is None:
            raise SettingsError(
                f'the method has no flownet with options {method.options}; leave out the stage {cls.name}'
            )
        street_share = recipe.shares.get(STREETS, 0.0)
        videos = {name: share for name, share in recipe.shares.items() if share and data.is_video(name)}
        if videos and not recipe.sampling.photometric:
            raise SettingsError(
                f'photometric is 0, so nothing is learnt from {", ".join(videos)}; use more, or no video'
            )
        pairs = data.clips(videos, recoloured=False)
        check_clips_are_long_enough(videos, pairs, [(2, False)])
        stills = data.images({name: recipe.shares[name] for name in recipe.shares if name not in videos})
        clips = data.streets if street_share else []
        return cls(flownet, stills, clips, street_share, recipe.sampling, data.seed, pairs)

    def batch(self, step: int, samples: Sequence[int] | None = None) -> Batch:
        """`images`, `previous`, `flows` as of a `Pair`, and `known`: whether the flow is; it is 0 if not."""
        pairs = [self._pair(step, index) for index in (range(self.size) if samples is None else samples)]
        height, width = pairs[0].image.shape[:2]
        unknown = np.zeros((2, height // CELL, width // CELL), np.float32)
        return {
            'images': np.stack([pair.image for pair in pairs]),
            'previous': np.stack([pair.previous for pair in pairs]),
            'flows': np.stack([unknown if pair.flow is None else pair.flow for pair in pairs]),
            'known': np.array([pair.flow is not None for pair in pairs]),
        }

    def _pair(self, step: int, index: int) -> Pair:
        rng = np.random.default_rng([self._seed, step, index])
        image, previous, flow = self._drawn(rng)
        if self._settings.crop:
            rows, columns = random_place(rng, image.shape[:2], self._settings.crop)
            image, previous = image[rows, columns], previous[rows, columns]
            if flow is not None:
                cells = [slice(place.start // CELL, place.stop // CELL) for place in (rows, columns)]
                flow = flow[:, cells[0], cells[1]]
        look = int(rng.integers(1 << 62))
        image, previous = recolour_clip(look, (image, previous))
        return Pair(image, previous, flow)

    def _drawn(self, rng: Generator) -> Pair:
        """A pair of one of the sources, as it is."""
        source = self._sources.pick(rng)
        if isinstance(source, LabelledImages):
            previous = source.images[int(rng.integers(len(source)))]
            flow = random_field(rng, previous.shape[0], previous.shape[1], self._settings)
            image, flow = look_through(previous, flow)
            return Pair(image, previous, flow)
        if isinstance(source, Sequence):
            clip = source[int(rng.integers(len(source)))]
            assert clip.flows is not None
            at = int(rng.integers(1, len(clip.images)))
            return Pair(clip.images[at], clip.images[at - 1], clip.flows[at - 1])
        previous, image = source.clip(rng, 2).images
        return Pair(image, previous, None)

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Each a mean over all pairs, to which those that it is not of add 0."""
        image, previous, known = to_rgb(batch['images']), to_rgb(batch['previous']), batch['known']
        flow = self.module(image, previous).float()
        errors = (flow - batch['flows']).square().sum(1).add(1e-6).sqrt().mean((1, 2))
        terms = {'end_point_error': (known * errors).mean()}
        if self._has_videos:
            terms |= self._losses_without_flow(image, previous, flow, ~known)
        return terms

    def _losses_without_flow(
        self, image: Tensor, previous: Tensor, flow: Tensor, chosen: Tensor
    ) -> dict[str, Tensor]:
        """Of the chosen pairs, bool (N,), of which there may be none; terms are the same in all processes."""
        differs = bends = flow.new_zeros(())
        if bool(chosen.any()):
            image, previous, flow = image[chosen], previous[chosen], flow[chosen]
            with torch.no_grad():
                seen = visible(flow, self.module(previous, image).float())
            image, previous = in_cells(image), in_cells(previous)
            differs = photometric_difference(image, previous, flow, seen).sum() / len(chosen)
            bends = bending(flow, image).sum() / len(chosen)
        return {
            'photometric': self._settings.photometric * differs,
            'smoothness': self._settings.smoothness * bends,
        }

    @torch.no_grad()
    def validate(self, average: nn.Module) -> dict[str, float]:
        """Nothing is kept aside: every pair is new."""
        return {}


def random_field(rng: Generator, height: int, width: int, settings: FlowSettings) -> np.ndarray:
    """A smooth backward flow in pixels: shift, growth about a point and local bumps, (H, W, 2)."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    centre = rng.uniform(0.3, 0.7, 2) * (width, height)
    growth = rng.normal(0, settings.growth)
    field = np.stack([x - centre[0], y - centre[1]], -1) * growth
    field += rng.normal(0, settings.shift, 2)
    bumps = rng.normal(0, settings.bumps, (5, 7, 2)).astype(np.float32)
    return (field + cv2.resize(bumps, (width, height), interpolation=cv2.INTER_CUBIC)).astype(np.float32)


def look_through(previous: np.ndarray, flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The image whose flow to `previous` is `flow`, and that flow in cells, float32 (2, h, w).

    Args:
        previous: uint8 (H, W, 3).
        flow: in pixels, float32 (H, W, 2).
    """
    height, width = previous.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    image = cv2.remap(
        previous, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return image, to_cells(flow)
