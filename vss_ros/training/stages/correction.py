"""Stage `correction`: CoNet of EVSS, and its flow network where it has one, behind a frozen segmenter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vss_ros.core.described import setting
from vss_ros.core.frame import CELL, UNLABELLED
from vss_ros.methods.blocks.decide import labels_of
from vss_ros.methods.blocks.resize import resize
from vss_ros.methods.evss import Evss
from vss_ros.methods.evss_losses import Prediction, edge_label, edge_loss, mean_cross_entropy
from vss_ros.training.losses import loss_weight, segmentation_losses, softness_of_weights, squares
from vss_ros.training.propagation import Carried, Judged, PropagationSettings, PropagationStage, follow

MIDDLE = [5, 6, 9, 10]  # of the 4 x 4 pixels of a cell


@dataclass(frozen=True)
class CorrectionSettings(PropagationSettings):
    """Sampling and the weights of the losses (EVSS sec. 3.4)."""

    warp: float = loss_weight(0.2, 'of the cross-entropy of what was warped')
    semantic: float = loss_weight(0.5, 'of the losses of the fused scores')
    edge: float = loss_weight(0.1, 'of the loss of edges')
    edge_semantics: float = loss_weight(0.2, 'of the cross-entropy on edges')
    jaccard: float = loss_weight(
        0.5, 'of the Jaccard loss in the semantic loss; not published, and neither are class weights'
    )
    weight_softness: float = softness_of_weights(1.05)
    thin_classes: tuple[int, ...] = setting((), 'all pixels are edges; in a recipe those of the class set')
    full_size: bool = setting(
        False,
        'judge at the size of the image, as the release does, instead of at a half (fused scores) and a '
        'quarter (the rest), which saves work',
    )
    void_edges: bool = setting(
        False, 'borders of unlabelled regions are edges too, as in the release on CamVid'
    )
    wrong_warps: bool = setting(
        False,
        'the edge map also learns where the warp has the wrong class, so that it lets corrections through '
        'inside large objects that the flow lost; not published',
    )
    emphasis: float = setting(
        0.0,
        'how much more pixels whose warped class is wrong weigh in the semantic loss; 0 as published',
        range=(0, math.inf),
    )


class Handed(NamedTuple):
    """What a frame is handed by the one before."""

    scores: Carried
    reference: Tensor  # labels the warp is compared with, float (N, 1, h, w)


class CorrectionStage(PropagationStage[Evss, Handed]):
    """What repairs warped frames. Gradients end at the state a frame is handed: each is judged by itself."""

    name = 'correction'
    settings_class = CorrectionSettings
    method_class = Evss
    trained = ('conet', 'flownet', 'glance')
    optional = ('flownet', 'glance')

    def start(self, image: Tensor, scores: Tensor) -> Handed:
        return Handed(Carried.from_key(scores), labels_of(scores))

    def advance(
        self, state: Handed, image: Tensor, flow: Tensor, judged: bool
    ) -> tuple[Handed, Prediction | None]:
        options = self.method.options
        warped, carried = follow(self.method, state.scores, flow)
        handed = state._replace(scores=carried)
        if not judged and options['carry'] != 'merged' and options['reference'] == 'key':
            return handed, None  # nothing of the correction reaches the next frame
        edge, updated = self.method.look_again(image, warped)
        edge, updated = edge.float(), updated.float()
        merged, _ = self.method.rectify(warped, updated, edge, state.reference, image.shape[2:])
        small = resize(merged.detach(), warped.shape[2:])
        if options['carry'] == 'merged':
            handed = handed._replace(scores=carried._replace(maps=small))
        if options['reference'] == 'previous':
            handed = handed._replace(reference=labels_of(small))
        return handed, Prediction(warped, updated, edge, merged)

    def judge(self, frame: Judged, truth: Tensor) -> dict[str, Tensor]:
        labels = self.targets(truth, frame.image)
        known = (truth != UNLABELLED).flatten(1).any(1)
        # Edges are those of true labels wherever there are any, also if the segmenter gives the targets.
        outlined = torch.where(known[:, None, None], truth, labels)
        return self.terms(frame.prediction, labels, outlined)

    def terms(
        self, prediction: Prediction, labels: Tensor, outlined: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The four losses.

        Args:
            outlined: labels whose borders are the edges, if others than `labels`.
        """
        settings: CorrectionSettings = self.settings
        outlined = labels if outlined is None else outlined
        if settings.full_size:
            fused = rest = labels.long()
            prediction = coarse = Prediction(*(resize(maps, labels.shape[1:]) for maps in prediction))
        else:
            fused, rest, outlined = squares(labels).long(), middles(labels).long(), middles(outlined)
            coarse = Prediction(*(maps.repeat_interleave(len(MIDDLE), 0) for maps in prediction))
        importance = 1 + settings.emphasis * is_wrong(prediction.warped, fused)
        semantic = segmentation_losses(prediction.merged, fused, self._balance, settings.jaccard, importance)

        no_edges = -1 if settings.void_edges else UNLABELLED
        edges = [edge_label(label, settings.thin_classes, no_edges) for label in outlined.cpu().numpy()]
        edge_targets = torch.from_numpy(np.stack(edges)).long().to(labels.device)
        if settings.wrong_warps:
            edge_targets |= is_wrong(coarse.warped, rest)
        predicted = coarse.edge.argmax(1) == 1
        # The release marks pixels off the edge by class 0, and so loses class 0 itself; kept.
        on_edges = torch.where(predicted & (rest != 0), rest, UNLABELLED)
        terms = {
            **{name: settings.semantic * term for name, term in semantic.items()},
            'edge': settings.edge * edge_loss(coarse.edge, edge_targets),
            'edge_semantics': settings.edge_semantics * mean_cross_entropy(coarse.updated, on_edges),
        }
        if coarse.warped.requires_grad:  # otherwise nothing that is trained can change it
            terms['warp'] = settings.warp * mean_cross_entropy(coarse.warped, rest)
        return terms


def is_wrong(warped: Tensor, labels: Tensor) -> Tensor:
    """Where the class of the warped scores is not the labelled one: bool, (N, H, W) or more, as `labels`."""
    found = resize(warped.detach(), labels.shape[-2:]).argmax(1, keepdim=labels.ndim == 4)
    return (found != labels) & (labels != UNLABELLED)


def middles(labels: Tensor) -> Tensor:
    """The four pixels around the middle of each cell, as labels of four images each: (4 N, H/4, W/4)."""
    return squares(labels, CELL)[:, MIDDLE].flatten(0, 1)
