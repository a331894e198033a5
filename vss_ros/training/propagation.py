"""What the training of every method's propagated frames has in common: clips, run as streams.

The first frame of a clip is segmented in full, every other one goes on from what it was handed. So the
networks meet the warp as it is after one to nine steps. Of some frames, the judged ones, a loss is taken.

To train another method, write a subclass of `PropagationStage` in a file of `stages/`: it names the networks
that learn (all others are frozen) and says how a stream starts, advances by one frame and is judged;
`stages/correction.py` is an example. Then add a line to `STAGES` there.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn

from vss_ros.core.described import Described, setting
from vss_ros.core.errors import SettingsError
from vss_ros.core.frame import CELL, UNLABELLED
from vss_ros.core.metrics import ConfusionMatrix
from vss_ros.core.motion import make_motion
from vss_ros.methods.blocks.image import to_rgb
from vss_ros.methods.blocks.resize import resize
from vss_ros.methods.blocks.warp import compose, warp
from vss_ros.methods.flow_warping import FlowWarping
from vss_ros.methods.method import Method
from vss_ros.training.augment import check_crop
from vss_ros.training.clips import Clip
from vss_ros.training.draws import JUDGED, SAMPLE, generator
from vss_ros.training.loop import Batch, weights_of
from vss_ros.training.losses import adjustment_of_scores, class_balance, softness_of_weights
from vss_ros.training.shares import Shares

if TYPE_CHECKING:
    from vss_ros.training.gather import Gathered
    from vss_ros.training.recipe import StageRecipe

State = TypeVar('State')
Trained = TypeVar('Trained', bound=Method)


class ClipSource(Protocol):
    """Gives labelled clips; 255 where the class is not known. Where one frame is labelled it is the last.

    `backwards`: the last frame is the earliest.
    """

    def clip(self, rng: Generator, frames: int, backwards: bool = False) -> Clip: ...


class Predicted(Protocol):
    """What a method makes of a propagated frame, as much of it as every method has."""

    @property
    def merged(self) -> Tensor:
        """The scores in the end, (N, K, any height, any width)."""


@dataclass(frozen=True)
class PropagationSettings(Described):
    """Sampling of clips.

    A clip is a stream of `frames`; or, with `hops`, a key frame and a frame at one of the `intervals` from
    it that is reached by so many flows, as papers train: one in EVSS, two in DAVSS.
    """

    batch: int = setting(4, 'clips, of which batch norm needs two', range=(2, math.inf))
    frames: int = setting(
        10, 'of a clip, its key frame included; with hops only of those kept aside', range=(2, math.inf)
    )
    judged: int = setting(
        4, 'propagated frames of a clip that a loss is taken on; with hops all of them', range=(1, math.inf)
    )
    hops: int = setting(0, 'flows that reach the last frame; 0: every frame of a stream', range=(0, math.inf))
    intervals: tuple[int, ...] = setting((), 'in frames; below 0 the key frame is the later one')
    crop: tuple[int, ...] = setting((), 'height, width of a random window; all of the images if not given')
    recolour: bool = setting(True, 'each clip another way')
    mirror: bool = setting(True, 'half of the clips, chosen at random')
    backwards: float = setting(
        0.0, 'share of streams that run back in time; with hops intervals below 0 do that', range=(0, 1)
    )
    pseudo_labels: bool = setting(False, "the segmenter's classes as the target even where true ones exist")
    weight_softness: float = softness_of_weights(0.0)
    logit_adjustment: float = adjustment_of_scores()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.judged >= self.frames:
            raise SettingsError(
                f'judged is {self.judged} of {self.frames} frames; use 1 to {self.frames - 1}, '
                'the key frame is never judged'
            )
        check_crop(self.crop)
        if any(abs(interval) < max(self.hops, 1) for interval in self.intervals):
            least = max(self.hops, 1)
            raise SettingsError(
                f'intervals are {list(self.intervals)}; use {least} or more, or -{least} or less'
            )
        if self.backwards and self.hops:
            raise SettingsError(f'backwards is {self.backwards}; use 0 with hops')
        if bool(self.hops) != bool(self.intervals):
            raise SettingsError('hops and intervals go together; give both, or none to train on streams')

    @property
    def lengths(self) -> set[tuple[int, bool]]:
        """The longest clips that samples are cut from: frames, and whether time runs back in them."""
        if self.hops:
            return {(abs(far) + 1, far < 0) for far in (min(self.intervals), max(self.intervals))}
        shares = {False: 1 - self.backwards, True: self.backwards}
        return {(self.frames, back) for back, share in shares.items() if share}


class Judged(NamedTuple):
    """A frame of a clip that was run."""

    place: int  # in the clip
    image: Tensor  # RGB (N, 3, H, W)
    flow: Tensor  # to the frame before, (N, 2, h, w) or more, see `PropagationStage.flow`
    key_scores: Tensor  # of the clip's first frame, (N, K, h, w)
    prediction: Any


class Carried(NamedTuple):
    """What goes from frame to frame along the flow."""

    maps: Tensor  # (N, C, h, w); those of the key frame where the flow is composed
    key_flow: Tensor  # to the key frame, (N, 2, h, w); of use where the flow is composed

    @classmethod
    def from_key(cls, maps: Tensor) -> Carried:
        """What a key frame hands on."""
        return cls(maps, torch.zeros_like(maps[:, :2]))


class PropagationStage(ABC, Generic[Trained, State]):
    """A stage of the training that learns from clips. `State` is what a frame is handed by the one before."""

    name: ClassVar[str]
    settings_class: ClassVar[type[PropagationSettings]] = PropagationSettings
    method_class: ClassVar[type[Method]]
    trained: ClassVar[tuple[str, ...]]  # names of the method's networks
    optional: ClassVar[tuple[str, ...]] = ('flownet',)  # of these, what a method may lack

    def __init__(
        self,
        method: Trained,
        sources: Sequence[tuple[ClipSource, float]],
        aside: Sequence[Clip],
        frequencies: np.ndarray,
        settings: Any,
        seed: int = 0,
    ) -> None:
        """`sources`: where clips come from and the share of each; `frequencies`: of the classes."""
        self.method, self.settings, self._seed = method, settings, seed
        self.module: nn.Module = train_only(method, self.trained, self.optional)
        self.size: int = settings.batch
        self._sources = Shares(sources)
        self._balance = class_balance(frequencies, settings.weight_softness, settings.logit_adjustment)
        self._aside = [self._arrays([clip]) for clip in aside]

    @classmethod
    def create(cls, method: Trained, data: Gathered, recipe: StageRecipe) -> PropagationStage:
        """The stage of a recipe.

        Raises:
            SettingsError: the method has none of the networks, or the data cannot be used.
        """
        sampling = recipe.sampling
        clips = data.clips(recipe.shares, sampling.recolour, mirrored=sampling.mirror)
        check_clips_are_long_enough(recipe.shares, clips, sampling.lengths)
        return cls(method, clips, data.clips_aside(sampling.frames), data.frequencies, sampling, data.seed)

    # What a method's stage says.

    @abstractmethod
    def start(self, image: Tensor, scores: Tensor) -> State:
        """What a key frame with these scores hands on; its image is RGB in [0, 1], (N, 3, H, W)."""

    @abstractmethod
    def advance(
        self, state: State, image: Tensor, flow: Tensor, judged: bool
    ) -> tuple[State, Predicted | None]:
        """Go on to the next frame: what it hands on, and what it predicts.

        Args:
            flow: from this frame to the one before, see `flow`.
            judged: a loss will be taken, so that a prediction is needed. Gradients flow only then; the
                state should be detached where no gradient is to run back to the frame before.
        """

    @abstractmethod
    def terms(self, prediction: Any, labels: Tensor) -> dict[str, Tensor]:
        """Weighted losses of one frame; `labels` uint8 (N, H, W) from `targets`."""

    def flow(self, image: Tensor, previous: Tensor) -> Tensor:
        """Where no host brings it: (N, 2, h, w), or with more channels behind, for `advance` alone."""
        return self.method.get_submodule('flownet')(image, previous).float()

    def resize(self, maps: Tensor, size: Sequence[int]) -> Tensor:
        """Scores at another (height, width)."""
        return resize(maps, size)

    # What all of them share.

    def batch(self, step: int, samples: Sequence[int] | None = None) -> Batch:
        clips = [self._clip(step, index) for index in (range(self.size) if samples is None else samples)]
        settings = self.settings
        rng = generator(JUDGED, self._seed, step)
        judged = 1 + rng.permutation(settings.frames - 1)[: settings.judged]
        if settings.hops:
            judged = 1 + np.arange(settings.hops)
        return {**self._arrays(clips), 'judged': np.sort(judged)}

    def _clip(self, step: int, index: int) -> Clip:
        settings = self.settings
        rng = generator(SAMPLE, self._seed, step, index)
        source = self._sources.pick(rng)
        if settings.hops:
            interval = int(rng.choice(settings.intervals))
            clip = source.clip(rng, abs(interval) + 1, interval < 0)
            between = 1 + rng.permutation(abs(interval) - 1)[: settings.hops - 1]
            clip = clip.frames([0, *sorted(between), abs(interval)])
        else:
            back = settings.backwards > 0 and rng.random() < settings.backwards
            clip = source.clip(rng, settings.frames, back)
        return clip.window(rng, settings.crop) if settings.crop else clip

    def _arrays(self, clips: Sequence[Clip]) -> Batch:
        arrays = {
            'images': np.stack([clip.images for clip in clips]),
            'labels': np.stack([clip.labels for clip in clips]),
        }
        if 'flow' in self.method.host_stages:
            kind = self.method.options['flow']
            arrays['flows'] = np.stack([host_flows(kind, clip.images) for clip in clips])
        return arrays

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        judged = batch['judged'].tolist()
        totals: dict[str, Tensor] = {}
        for frame in self.run(batch, judged):
            for name, term in self.judge(frame, batch['labels'][:, frame.place]).items():
                totals[name] = totals.get(name, torch.zeros(())) + term / len(judged)
        return totals

    def judge(self, frame: Judged, truth: Tensor) -> dict[str, Tensor]:
        """Weighted losses of one frame; `truth` uint8 (N, H, W), 255 where the class is not known."""
        return self.terms(frame.prediction, self.targets(truth, frame.image))

    def run(self, batch: dict[str, Tensor], judged: Sequence[int]) -> Iterator[Judged]:
        """Run clips as streams and yield the judged frames as they are reached."""
        images = batch['images']
        current = to_rgb(images[:, 0])
        with torch.no_grad():
            key_scores = self.method.segment(current)
            state = self.start(current, key_scores)
        for index in range(1, max(judged) + 1):
            previous, current = current, to_rgb(images[:, index])
            with torch.set_grad_enabled(torch.is_grad_enabled() and index in judged):
                flow = batch['flows'][:, index - 1] if 'flows' in batch else self.flow(current, previous)
                state, prediction = self.advance(state, current, flow, index in judged)
            if index in judged:
                yield Judged(index, current, flow, key_scores, prediction)

    @torch.no_grad()
    def targets(self, labels: Tensor, image: Tensor) -> Tensor:
        """True classes, and the segmenter's own where there are none; uint8 (N, H, W)."""
        unknown = (labels == UNLABELLED).flatten(1).all(1)
        if self.settings.pseudo_labels or bool(unknown.all()):
            return self.resize(self.method.segment(image), image.shape[2:]).argmax(1).byte()
        if bool(unknown.any()):
            labels = labels.clone()
            labels[unknown] = self.targets(labels[unknown], image[unknown])
        return labels

    @torch.no_grad()
    def validate(self, average: nn.Module) -> dict[str, float]:
        """`corrected_<d>` and `warped_<d>`, mIoU in per cent at full resolution d frames after the key.

        `warped` is what warping alone gives, with the same flow and no correction anywhere.
        """
        counts: dict[str, ConfusionMatrix] = {}

        def count(name: str, scores: Tensor, truth: Tensor) -> None:
            mask = self.resize(scores, truth.shape[1:]).argmax(1)[0].byte()
            matrix = counts.setdefault(name, ConfusionMatrix(self.method.classes))
            matrix.update(truth[0].cpu().numpy(), mask.cpu().numpy())

        only_warped = torch.empty(0)

        def judge(frame: Judged, truth: Tensor) -> None:
            nonlocal only_warped
            only_warped = warp(frame.key_scores if frame.place == 1 else only_warped, frame.flow[:, :2])
            if bool((truth != UNLABELLED).any()):
                count(f'corrected_{frame.place}', frame.prediction.merged, truth)
                count(f'warped_{frame.place}', only_warped, truth)

        self.run_aside(average, judge)
        return {name: 100 * matrix.miou() for name, matrix in counts.items()}

    def run_aside(self, average: nn.Module, judge: Callable[[Judged, Tensor], None]) -> None:
        """Run the clips kept aside with the averaged networks; `judge` takes each frame and its labels."""
        device = next(self.method.parameters()).device
        with weights_of(self.module.eval(), average):
            for arrays in self._aside:
                batch = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
                for frame in self.run(batch, range(1, batch['images'].shape[1])):
                    judge(frame, batch['labels'][:, frame.place])


def check_clips_are_long_enough(
    names: Iterable[str],
    sources: Sequence[tuple[ClipSource, float]],
    lengths: Iterable[tuple[int, bool]],
) -> None:
    """Raises SettingsError, with the name of the data, where a source has no clip of one of these lengths."""
    for name, (source, share) in zip(names, sources, strict=True):
        for frames, backwards in lengths if share else ():
            try:
                source.clip(np.random.default_rng(0), frames, backwards)
            except SettingsError as error:
                raise SettingsError(f'{name}: {error}') from error


def follow(method: FlowWarping, carried: Carried, flow: Tensor) -> tuple[Tensor, Carried]:
    """Go on along the flow: the warped maps, (N, C, h, w), and what is handed on, where gradients end.

    Args:
        carried: what the frame before handed on.
        flow: to the frame before, (N, 2, h, w).
    """
    if not method.composes:
        warped = warp(carried.maps, flow)
        return warped, carried._replace(maps=warped.detach())
    key_flow = compose(flow, carried.key_flow)
    return warp(carried.maps, key_flow), carried._replace(key_flow=key_flow.detach())


def train_only(method: Method, names: Sequence[str], optional: Sequence[str] = ()) -> nn.ModuleDict:
    """Let these networks of the method learn and freeze all others, in eval mode; returns those that learn.

    Args:
        optional: those of the names that the method may lack.
    Raises:
        SettingsError: the method lacks another one, or has none of them.
    """
    networks = nn.ModuleDict({name: net for name, net in method.named_children() if name in names})
    missing = [name for name in names if name not in networks and (name not in optional or not networks)]
    if missing:
        have = ', '.join(name for name, _ in method.named_children())
        raise SettingsError(
            f'a method with options {method.options} has no {", ".join(missing)}; its networks are {have} (a '
            'parameter is none). Leave out the stage for it'
        )
    for name, network in method.named_children():
        network.requires_grad_(name in networks).train(name in networks)
    return networks


def host_flows(kind: str, images: np.ndarray) -> np.ndarray:
    """Flow of each frame but the first to the one before, float32 (T - 1, 2, h, w), in cells."""
    motion = make_motion(kind)
    flows = [motion.update(image, wanted=index > 0) for index, image in enumerate(images)]
    still = np.zeros((2, -(-images.shape[1] // CELL), -(-images.shape[2] // CELL)), np.float32)
    return np.stack([still if flow is None else flow[0] for flow in flows[1:]])
