"""STF+MAR: inter-frame feature fusion and inner-frame feature refinement (Zhuang, Wang, Li).

Every frame costs the same: a network of single images gives its features, a transformer fuses them with
those of two other frames (STF), a memory of the classes refines every cell (MAR), and a 1x1 convolution
gives the scores. The features of older frames are kept, not computed again.
Shapes: N batch, K classes, H x W image, h x w = H/8 x W/8, d features. Scores are class logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vss_ros.core.described import check_choice
from vss_ros.core.errors import SettingsError
from vss_ros.methods.blocks.image import check_size
from vss_ros.methods.blocks.lite_features import LiteFeatures
from vss_ros.methods.blocks.mar import Mar
from vss_ros.methods.blocks.mixed_norm import NORMS, with_norms
from vss_ros.methods.blocks.pspnet import PspNet
from vss_ros.methods.blocks.stf import DEPTH, HEADS, Stf
from vss_ros.methods.method import Method

STRIDE = 8  # of the features


class Backbone(NamedTuple):
    network: type[PspNet] | type[LiteFeatures]
    grid: tuple[int, int]  # of the positional encodings: rows, columns


class Order(NamedTuple):
    """What STF is given: ages of the frames by slot, and the slot whose scores are wanted."""

    ages: tuple[int, ...]
    centre: int

    @property
    def delay_frames(self) -> int:
        return self.ages[self.centre]

    @property
    def older(self) -> int:
        """How many frames before the newest one are looked at."""
        return max(self.ages)


BACKBONES = {
    'pspnet': Backbone(PspNet, (128, 256)),  # 1024 x 2048 images
    'lite': Backbone(LiteFeatures, (45, 60)),  # 360 x 480 images
}
ORDERS = {
    'published': Order((2, 1, 0), centre=1),
    'causal': Order((2, 1, 0), centre=2),
    'centred': Order((2, 0, 1), centre=1),
    'mirrored': Order((1, 0, 1), centre=1),
    'alone': Order((0,), centre=0),  # nothing to fuse
}


class StMemory(Method):
    """Graphs: features, fusion on every frame; start before the first fusion. State: two older features.

    With `frames: mirrored` the state is one of them, with `alone` there is no start and no state.

    Args:
        classes: number of classes K.
        backbone: `pspnet` (published, d = 512), or `lite`, the segmenter of evss-lite, whose weights fit,
            with d = 64, for training and running on CPUs.
        frames: the three frames that are fused for the result of frame T. `published`: T-1, T, T+1, one
            frame late. `causal`: T-2, T-1, T, to be trained that way. `centred`: T-2, T, T-1, and
            `mirrored`: T-1, T, T-1, no delay either, with T in the slot that published weights know it in.
            `alone`: T only, without STF, as the paper measures MAR by itself; with `refinement: none` the
            network of single images is left, which public weights serve as they are.
        block: wanted side of the blocks of attention, or [rows, columns], in cells of h x w; what is used
            is the side near it that divides h or w: 15 for 360x480, 16 for 1024x2048. No weight depends
            on it.
        heads: of attention (published: 2).
        depth: layers of the encoder of STF, and of its decoder (published: 1).
        grid: (rows, columns) of the stored positional encodings, which are resized to h x w; without it
            128x256 for `pspnet` (published), 45x60 for `lite`.
        keys_per_class: hard features per class in the memory.
        refinement: `memory` (MAR), or `none`: the first stage of training, STF alone.
        norms: of the backbone, `batch` (published), or with `lite` also `mixed`, see `MixedNorm`.
        options: those of `Method`.
    Raises:
        SettingsError: an option has a value that cannot be used.
    """

    steps = {'key': ('features', 'start', 'fusion'), 'propagated': ('features', 'fusion')}
    key_network = 'pspnet'
    state = {'features': 'previous_features', 'previous_features': 'older_features'}

    def __init__(
        self,
        classes: int,
        *,
        backbone: str = 'pspnet',
        frames: str = 'published',
        block: int | Sequence[int] = 16,
        heads: int = HEADS,
        depth: int = DEPTH,
        grid: Sequence[int] | None = None,
        keys_per_class: int = 10,
        refinement: str = 'memory',
        norms: str = 'batch',
        **options: Any,
    ) -> None:
        check_choice('backbone', backbone, tuple(BACKBONES))
        grid = list(grid or BACKBONES[backbone].grid)
        super().__init__(
            classes,
            backbone=backbone,
            frames=frames,
            block=block if isinstance(block, int) else list(block),
            heads=heads,
            depth=depth,
            grid=grid,
            keys_per_class=keys_per_class,
            refinement=refinement,
            norms=norms,
            **options,
        )
        check_options(self.options)
        self.order = ORDERS[frames]
        self.fuses = self.order.older > 0
        self.state = dict(list(self.state.items())[: self.order.older])
        if not self.fuses:
            self.steps = {'key': ('features', 'fusion')}
        self.delay_frames = self.order.delay_frames
        # Names as in published files.
        self.pspnet = with_norms(BACKBONES[backbone].network(classes), norms)
        width = self.pspnet.width
        if width % heads:
            raise SettingsError(f'heads is {heads}; use a number that divides the {width} channels')
        self.STF: nn.Module = nn.Identity()
        if self.fuses:
            self.STF = Stf(width, grid, sides_of(block), heads, depth)
        self.MAR: nn.Module = nn.Identity()
        if refinement == 'memory':
            self.MAR = Mar(width, classes, keys_per_class)

    def parameters_of(self, graph: str) -> tuple[str, ...]:
        names = super().parameters_of(graph)
        return names[: 1 + self.order.older] if graph == 'fusion' else names

    def features(self, image: Tensor) -> dict[str, Tensor]:
        """image uint8 (N, H, W, 3) BGR -> features (N, D, h, w), whose first d channels are fused."""
        check_size(image.shape[1:3], STRIDE)
        return {'features': self.pspnet.features(self.look(image, self.pspnet)).float()}

    def start(self, features: Tensor) -> dict[str, Tensor]:
        """The first frame of a stream stands for those before it, features (N, D, h, w)."""
        return {name: features.clone() for name in self.state.values()}

    def fusion(
        self,
        features: Tensor,
        previous_features: Tensor | None = None,
        older_features: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Features of the newest frame, the one before and the one before that, all (N, D, h, w).

        Where `frames` is `mirrored` there are those of the first two, where it is `alone` of the newest only.

        Returns:
            scores: (N, K, h, w); `lite` has twice that height and width.
            mask, confidence: see `decided`. All of the frame `delay_frames` before the newest one.
        """
        by_age = [each for each in (features, previous_features, older_features) if each is not None]
        scores = self.classify(self.MAR(self.fuse(*by_age)), *by_age).float()
        size = [STRIDE * side for side in features.shape[2:]]
        return {'scores': scores, **self.decided(scores, size)}

    def fuse(self, *features_by_age: Tensor) -> Tensor:
        """What STF makes of the features of these frames, newest first, (N, D, h, w): (N, d, h, w).

        Where `frames` is `alone` it is those of the newest one, as they are.
        """
        slots = [features_by_age[age][:, : self.pspnet.width] for age in self.order.ages]
        return self.STF(torch.stack(slots, 2), self.order.centre) if self.fuses else slots[0]

    def classify(self, refined: Tensor, *features_by_age: Tensor) -> Tensor:
        """Scores from fused or refined features (N, d, h, w) of the frame that the result belongs to."""
        return self.pspnet.classify(refined, features_by_age[self.delay_frames])

    def fold(self, image_size: Sequence[int]) -> None:
        super().fold(image_size)
        if isinstance(self.STF, Stf):
            self.STF.fold([side // STRIDE for side in image_size])
        if isinstance(self.MAR, Mar):
            self.MAR = self.MAR.folded()


def check_options(options: dict) -> None:
    """Raises SettingsError unless every option of StMemory has a value that can be used."""
    check_choice('frames', options['frames'], tuple(ORDERS))
    check_choice('norms', options['norms'], NORMS)
    check_choice('refinement', options['refinement'], ('memory', 'none'))
    for name in ('heads', 'depth', 'keys_per_class'):
        if options[name] < 1:
            raise SettingsError(f'{name} is {options[name]}; use 1 or more')
    block = sides_of(options['block'])
    if len(block) != 2 or min(block) < 1:
        raise SettingsError(f'block is {options["block"]}; use 1 or more, or [rows, columns]')
    grid = options['grid']
    if len(grid) != 2 or min(grid) < 1:
        raise SettingsError(f'grid is {grid}; use [rows, columns] of 1 or more')


def sides_of(block: int | Sequence[int]) -> list[int]:
    """Rows and columns of a block; of one number both."""
    return [block, block] if isinstance(block, int) else list(block)
