"""Stage `flow`: the flow network, on pairs whose exact flow is known.

Drawn streets bring theirs; a real image gets a smooth random field and is looked at through it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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

    def __post_init__(self) -> None:
        super().__post_init__()
        check_crop(self.crop)


class FlowStage:
    """Trains `flownet` on random pairs: towards the least end-point error, in cells of the 1/4 map."""

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
    ) -> None:
        """`stills` and their shares; `clips` with flow and their `clip_share`."""
        self.module, self._settings, self._seed = flownet, settings, seed
        flownet.requires_grad_(True)  # a stage before may have frozen it
        self.size = settings.batch
        self._sources: Shares[LabelledImages | Sequence[Clip]] = Shares(
            [*stills, (clips, clip_share if clips else 0.0)]
        )

    @classmethod
    def create(cls, method: Method, data: Gathered, recipe: StageRecipe) -> FlowStage:
        flownet = getattr(method, 'flownet', None)
        if flownet is None:
            raise SettingsError(
                f'the method has no flownet with options {method.options}; leave out the stage {cls.name}'
            )
        share = recipe.shares.get(STREETS, 0.0)
        stills, clips = data.images(recipe.shares), data.streets if share else []
        return cls(flownet, stills, clips, share, recipe.sampling, data.seed)

    def batch(self, step: int, samples: Sequence[int] | None = None) -> Batch:
        pairs = [self._pair(step, index) for index in (range(self.size) if samples is None else samples)]
        names = ('images', 'previous', 'flows')
        return {name: np.stack(part) for name, part in zip(names, zip(*pairs, strict=True), strict=True)}

    def _pair(self, step: int, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = np.random.default_rng([self._seed, step, index])
        source = self._sources.pick(rng)
        if isinstance(source, LabelledImages):
            previous = source.images[int(rng.integers(len(source)))]
            flow = random_field(rng, previous.shape[0], previous.shape[1], self._settings)
            image, flow = look_through(previous, flow)
        else:
            clip = source[int(rng.integers(len(source)))]
            assert clip.flows is not None
            at = int(rng.integers(1, len(clip.images)))
            image, previous, flow = clip.images[at], clip.images[at - 1], clip.flows[at - 1]
        if self._settings.crop:
            rows, columns = random_place(rng, image.shape[:2], self._settings.crop)
            image, previous = image[rows, columns], previous[rows, columns]
            flow = flow[
                :, rows.start // CELL : rows.stop // CELL, columns.start // CELL : columns.stop // CELL
            ]
        look = int(rng.integers(1 << 62))
        image, previous = recolour_clip(look, (image, previous))
        return image, previous, flow

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        flow = self.module(to_rgb(batch['images']), to_rgb(batch['previous'])).float()
        return {'end_point_error': (flow - batch['flows']).square().sum(1).add(1e-6).sqrt().mean()}

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
