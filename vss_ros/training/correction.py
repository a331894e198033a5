"""Stage `correction`: the networks of propagated frames, on clips, behind a frozen segmenter.

A clip is run as a stream is: the first frame is segmented in full, every other one warps what it was
handed and repairs it. So the networks meet the warp as it is after one to nine steps, with their
own corrections in it where the method carries them on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn

from vss_ros.core.errors import SettingsError
from vss_ros.core.metrics import ConfusionMatrix
from vss_ros.core.motion import make_motion
from vss_ros.methods.blocks.image import to_rgb
from vss_ros.methods.blocks.resize import resize
from vss_ros.methods.blocks.warp import warp
from vss_ros.methods.evss import Evss, labels_of
from vss_ros.methods.evss_losses import Prediction, edge_label, edge_loss, mean_cross_entropy
from vss_ros.training.clips import Clip
from vss_ros.training.data import IGNORE
from vss_ros.training.loop import Batch
from vss_ros.training.losses import class_weights, segmentation_losses


class ClipSource(Protocol):
    """Gives labelled clips; 255 where the class is not known."""

    def clip(self, rng: Generator, frames: int) -> Clip: ...


@dataclass(frozen=True)
class CorrectionSettings:
    """Sampling and the weights of the losses (EVSS sec. 3.4)."""

    batch: int = 4
    frames: int = 10  # of a clip, its key frame included
    judged: int = 4  # propagated frames of a clip that a loss is taken on
    warp: float = 0.2
    semantic: float = 0.5
    edge: float = 0.1
    edge_semantics: float = 0.2
    jaccard: float = 0.5  # added to the semantic loss
    weight_softness: float = 1.05  # class weights of the semantic loss; 0: all the same
    thin_classes: tuple[int, ...] = (2, 9, 10)
    pseudo_labels: bool = False  # the segmenter's classes as the target even where true ones exist

    def __post_init__(self) -> None:
        if self.batch < 2:
            raise SettingsError(f'batch is {self.batch}; batch norm needs 2 or more')
        if not 1 <= self.judged < self.frames:
            raise SettingsError(
                f'judged is {self.judged} of {self.frames} frames; use 1 to {self.frames - 1}, '
                'the key frame is never judged'
            )


class CorrectionStage:
    """Trains `conet`, and `flownet` where the method has one."""

    name = 'correction'

    def __init__(
        self,
        method: Evss,
        sources: Sequence[tuple[ClipSource, float]],
        aside: Sequence[Clip],
        frequencies: np.ndarray,
        settings: CorrectionSettings,
        seed: int = 0,
    ) -> None:
        """`sources`: where clips come from and the share of each; `frequencies`: of the classes."""
        self.method, self._settings, self._seed = method, settings, seed
        networks = {name: getattr(method, name, None) for name in ('conet', 'flownet')}
        self._networks = nn.ModuleDict({name: net for name, net in networks.items() if net})
        self.module: nn.Module = self._networks
        method.csrnet.requires_grad_(False).eval()
        self._sources = [source for source, _ in sources]
        self._shares = np.array([share for _, share in sources]) / sum(s for _, s in sources)
        self._weights = None
        if settings.weight_softness:
            weights = class_weights(frequencies, settings.weight_softness)
            self._weights = torch.from_numpy(weights).float()
        self._aside = [self._arrays([clip]) for clip in aside]

    def batch(self, step: int) -> Batch:
        clips = []
        for index in range(self._settings.batch):
            rng = np.random.default_rng([self._seed, step, index])
            source = self._sources[rng.choice(len(self._sources), p=self._shares)]
            clips.append(source.clip(rng, self._settings.frames))
        rng = np.random.default_rng([self._seed, step])
        judged = 1 + rng.permutation(self._settings.frames - 1)[: self._settings.judged]
        return {**self._arrays(clips), 'judged': np.sort(judged)}

    def _arrays(self, clips: Sequence[Clip]) -> Batch:
        arrays = {
            'images': np.stack([clip.images for clip in clips]),
            'labels': np.stack([clip.labels for clip in clips]),
        }
        kind = self.method.options['flow']
        if kind != 'network':
            arrays['flows'] = np.stack([host_flows(kind, clip.images) for clip in clips])
        return arrays

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        judged = batch['judged'].tolist()
        self.method.csrnet.eval()
        totals: dict[str, Tensor] = {}
        frames = propagate(self.method, self._networks, batch, judged)
        for index, (image, prediction) in zip(judged, frames, strict=True):
            labels = self._targets(batch['labels'][:, index], image)
            for name, term in self._terms(prediction, labels).items():
                totals[name] = totals.get(name, torch.zeros(())) + term / len(judged)
        return totals

    @torch.no_grad()
    def _targets(self, labels: Tensor, image: Tensor) -> Tensor:
        """True classes, and the segmenter's own where there are none; uint8 (N, H, W)."""
        unknown = (labels == IGNORE).flatten(1).all(1)
        if self._settings.pseudo_labels or bool(unknown.all()):
            return resize(self.method.csrnet(image).float(), image.shape[2:]).argmax(1).byte()
        if bool(unknown.any()):
            labels = labels.clone()
            labels[unknown] = self._targets(labels[unknown], image[unknown])
        return labels

    def _terms(self, prediction: Prediction, labels: Tensor) -> dict[str, Tensor]:
        """The four losses; fused scores at half resolution, the rest at 1/4, to save work."""
        settings = self._settings
        half, quarter = labels[:, ::2, ::2].long(), labels[:, 2::4, 2::4].long()
        weights = None if self._weights is None else self._weights.to(labels.device)
        semantic = segmentation_losses(prediction.merged, half, weights, settings.jaccard)

        edges = [edge_label(label, settings.thin_classes) for label in quarter.cpu().numpy()]
        edge_targets = torch.from_numpy(np.stack(edges)).long().to(labels.device)
        predicted = prediction.edge.argmax(1) == 1
        on_edges = torch.where(predicted & (quarter != 0), quarter, IGNORE)
        terms = {
            **{name: settings.semantic * term for name, term in semantic.items()},
            'edge': settings.edge * edge_loss(prediction.edge, edge_targets),
            'edge_semantics': settings.edge_semantics * mean_cross_entropy(prediction.updated, on_edges),
        }
        if prediction.warped.requires_grad:  # otherwise nothing that is trained can change it
            terms['warp'] = settings.warp * mean_cross_entropy(prediction.warped, quarter)
        return terms

    def validate(self, average: nn.Module) -> dict[str, float]:
        """mIoU (%) of corrected and of merely warped frames, by distance from the key frame."""
        assert isinstance(average, nn.ModuleDict)
        return mean_iou_by_distance(self.method, average, self._aside) if self._aside else {}


def host_flows(kind: str, images: np.ndarray) -> np.ndarray:
    """Flow of each frame but the first to the one before, float32 (T - 1, 2, h, w), in cells."""
    motion = make_motion(kind)
    flows = [motion.update(image, wanted=index > 0) for index, image in enumerate(images)]
    still = np.zeros((2, -(-images.shape[1] // 4), -(-images.shape[2] // 4)), np.float32)
    return np.stack([still if flow is None else flow[0] for flow in flows[1:]])


def propagate(
    method: Evss, networks: nn.ModuleDict, batch: dict[str, Tensor], judged: Sequence[int]
) -> Iterator[tuple[Tensor, Prediction]]:
    """Run clips as streams and yield the frames `judged`: RGB and what was predicted at 1/4.

    Gradients end at the state a frame is handed, so each frame can be judged by itself.
    """
    images = batch['images']
    options = method.options
    with torch.no_grad():
        carried = method.csrnet(to_rgb(images[:, 0])).float()
    reference = labels_of(carried)
    current = to_rgb(images[:, 0])
    for index in range(1, max(judged) + 1):
        previous, current = current, to_rgb(images[:, index])
        with torch.set_grad_enabled(torch.is_grad_enabled() and index in judged):
            flow = (
                networks['flownet'](current, previous).float()
                if options['flow'] == 'network'
                else batch['flows'][:, index - 1]
            )
            warped = warp(carried, flow)
            if index not in judged and options['carry'] == 'warped':
                carried = warped  # nothing of the correction reaches the next frame
                continue
            edge, updated = networks['conet'](current, warped)
            edge, updated = edge.float(), updated.float()
            merged, _ = method.rectify(warped, updated, edge, reference, current.shape[2:])
        if index in judged:
            yield current, Prediction(warped, updated, edge, merged)
        small = resize(merged.detach(), warped.shape[2:])
        carried = small if options['carry'] == 'merged' else warped.detach()
        if options['reference'] == 'previous':
            reference = labels_of(small)


@torch.no_grad()
def mean_iou_by_distance(method: Evss, networks: nn.ModuleDict, clips: Sequence[Batch]) -> dict[str, float]:
    """`corrected_<d>` and `warped_<d>`, mIoU in per cent at full resolution d frames after the key.

    `warped` is what warping alone gives, with the same flow and no correction anywhere.
    """
    device = next(method.csrnet.parameters()).device
    networks.eval()
    counts: dict[str, ConfusionMatrix] = {}

    def count(name: str, scores: Tensor, truth: Tensor) -> None:
        mask = resize(scores, truth.shape[1:]).argmax(1)[0].byte()
        matrix = counts.setdefault(name, ConfusionMatrix(method.classes))
        matrix.update(truth[0].cpu().numpy(), mask.cpu().numpy())

    for arrays in clips:
        batch = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        distances = range(1, batch['images'].shape[1])
        only_warped = method.csrnet(to_rgb(batch['images'][:, 0])).float()
        frames = propagate(method, networks, batch, distances)
        for distance, (_, prediction) in zip(distances, frames, strict=True):
            truth = batch['labels'][:, distance]
            if method.options['flow'] == 'network':
                flow = method.flow(batch['images'][:, distance], batch['images'][:, distance - 1])
                only_warped = warp(only_warped, flow['flow'])
            else:
                only_warped = warp(only_warped, batch['flows'][:, distance - 1])
            count(f'corrected_{distance}', prediction.merged, truth)
            count(f'warped_{distance}', only_warped, truth)
    return {name: 100 * matrix.miou() for name, matrix in counts.items()}
