"""Stages `distortion` and `joint` of DAVSS, behind a frozen DeepLab; see `methods/davss_losses.py`.

As published: samples of two hops, the last frame with its true labels and the one between with DeepLab's
own; DMNet first, on where propagated and own labels differ, then the flow network and CFNet together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from vss_ros.core.described import setting
from vss_ros.core.errors import SettingsError
from vss_ros.methods.blocks.merge import merge
from vss_ros.methods.blocks.warp import compose
from vss_ros.methods.davss import Davss
from vss_ros.methods.davss_losses import Prediction, davss_losses, distortion_target
from vss_ros.training.losses import loss_weight, segmentation_losses
from vss_ros.training.propagation import Judged, PropagationSettings, PropagationStage


class Handed(NamedTuple):
    """What a frame is handed by the one before."""

    scores: Tensor  # (N, K, h, w)
    appearance: Tensor  # RGB in [0, 1], (N, 3, h, w)
    key_flow: Tensor  # to the key frame, (N, 2, h, w); of use where the flow is composed


class Distorted(NamedTuple):
    """A propagated frame before it is corrected, at 1/4."""

    warped: Tensor  # (N, K, h, w)
    distortion: Tensor  # (N, 1, h, w)

    @property
    def merged(self) -> Tensor:
        return self.warped


class DavssStage(PropagationStage[Davss, Handed]):
    """How a stream starts and is carried on.

    Gradients run back through hops, as in the release; in a stream they end at what a frame is handed.
    """

    method_class = Davss

    def start(self, image: Tensor, scores: Tensor) -> Handed:
        still = torch.zeros_like(scores[:, :2])
        return Handed(scores, self.method.quarter(image), still)

    def resize(self, maps: Tensor, size: Sequence[int]) -> Tensor:
        return self.method.resize(maps, size)

    def carry(self, state: Handed, flow: Tensor) -> tuple[Handed, Handed]:
        """What arrives along the flow, and what the next frame is handed of it if nothing is corrected."""
        if not self.settings.hops:
            state = Handed(*(maps.detach() for maps in state))
        along = flow
        if self.method.composes:
            along = compose(flow, state.key_flow)
        moved = self.method.warp(state.scores, state.appearance, along)
        arrived = Handed(moved['warped'], moved['warped_appearance'], along)
        return arrived, state._replace(key_flow=along) if self.method.composes else arrived


@dataclass(frozen=True)
class DistortionSettings(PropagationSettings):
    """Sampling of the distortion stage. The targets are always DeepLab's, true labels play no part."""

    pseudo_labels: bool = setting(True, 'always')

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.pseudo_labels:
            raise SettingsError('the stage distortion knows no true labels; leave pseudo_labels out')


class DistortionStage(DavssStage):
    """Trains DMNet."""

    name = 'distortion'
    settings_class = DistortionSettings
    trained = ('dmnet',)

    def advance(
        self, state: Handed, image: Tensor, flow: Tensor, judged: bool
    ) -> tuple[Handed, Distorted | None]:
        arrived, handed = self.carry(state, flow)
        if not judged:
            return handed, None
        distortion = self.method.dmnet(arrived.appearance, self.method.quarter(image))
        return handed, Distorted(arrived.scores, distortion)

    def terms(self, prediction: Distorted, labels: Tensor) -> dict[str, Tensor]:
        wide, target = self._against(prediction, labels)
        with torch.autocast(wide.device.type, enabled=False):
            return {'distortion': functional.binary_cross_entropy(wide, target)}

    def _against(self, prediction: Distorted, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The map at full size, and where the propagated labels are not `labels`, (N, 1, H, W) each."""
        size = labels.shape[1:]
        target = distortion_target(self.resize(prediction.warped, size), labels.long())
        return self.resize(prediction.distortion, size).float(), target

    @torch.no_grad()
    def validate(self, average: nn.Module) -> dict[str, float]:
        """`error_<d>`: mean absolute error of the map in per cent, d frames after the key."""
        errors: dict[str, list[float]] = {}

        def count(frame: Judged, truth: Tensor) -> None:
            wide, target = self._against(frame.prediction, self.targets(truth, frame.image))
            errors.setdefault(f'error_{frame.place}', []).append(float((wide - target).abs().mean()))

        self.run_aside(average, count)
        return {name: 100 * sum(each) / len(each) for name, each in errors.items()}


@dataclass(frozen=True)
class JointSettings(PropagationSettings):
    """Sampling and the weights of the losses (DAVSS eq. 7; the paper has 1, 1, 1)."""

    propagation: float = loss_weight(0.5, 'of the cross-entropy of what was warped')
    correction: float = loss_weight(0.5, 'of that of the corrected scores')
    cue: float = loss_weight(1.0, 'of that of the cue where the distortion map says so')
    detach_distortion: bool = setting(
        False,
        'keep the flow network from learning through the distortion map; the release lets it, by way of the '
        'warped appearance',
    )
    batch_map: bool = setting(
        False,
        'weigh the cue by the mean map of the batch, as broadcasting in the release does, not by the own map '
        'of each image (eq. 3)',
    )
    jaccard: float = loss_weight(
        0.0, 'of a Jaccard loss in the correction, for light networks and few steps; not published'
    )
    cue_everywhere: float = loss_weight(
        0.0, 'of a plain cross-entropy of the cue, whatever the map says, likewise'
    )


class JointStage(DavssStage):
    """Trains CFNet and the flow network where there is one (dual deep supervision)."""

    name = 'joint'
    settings_class = JointSettings
    trained = ('flownet', 'cfnet')

    def advance(
        self, state: Handed, image: Tensor, flow: Tensor, judged: bool
    ) -> tuple[Handed, Prediction | None]:
        method = self.method
        arrived, handed = self.carry(state, flow)
        feeds_back = method.options['carry'] == 'merged'
        if not judged and not feeds_back:
            return handed, None
        seen = method.quarter(image)
        distortion = method.dmnet(arrived.appearance, seen)
        if self.settings.detach_distortion:
            distortion = distortion.detach()
        cue = method.cfnet(image).float()
        merged, wide = method.rectify(arrived.scores, cue, distortion, image.shape[2:])
        if feeds_back:
            scores = method.resize(merged, arrived.scores.shape[2:])
            handed = Handed(scores, merge(arrived.appearance, seen, distortion), arrived.key_flow)
        return handed, Prediction(arrived.scores, cue, wide, merged)

    def terms(self, prediction: Prediction, labels: Tensor) -> dict[str, Tensor]:
        settings: JointSettings = self.settings
        # Published at full size. Maps fused at a quarter are judged at half, which keeps poles two pixels
        # wide at a quarter of the cost.
        at_full = self.method.options['fusion'] == 'full'
        size, pixels = labels.shape[1:], slice(None, None, 1 if at_full else 2)
        targets = labels[:, pixels, pixels].long()
        wide = Prediction(*(self.resize(maps, size)[:, :, pixels, pixels] for maps in prediction))
        losses = davss_losses(wide, targets, settings.batch_map)
        terms = {name: getattr(settings, name) * loss for name, loss in losses.items()}
        if not prediction.warped.requires_grad:  # nothing that is trained can change it
            del terms['propagation']
        if settings.jaccard:
            more = segmentation_losses(wide.merged, targets, self._balance, settings.jaccard)
            terms['jaccard'] = settings.correction * more['jaccard']
        if settings.cue_everywhere:
            plain = segmentation_losses(wide.cue, targets, self._balance, 0)['cross_entropy']
            terms['cue_everywhere'] = settings.cue_everywhere * plain
        return terms
