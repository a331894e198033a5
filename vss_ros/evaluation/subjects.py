"""What is scored: a model, the same without its correction, or with every frame computed in full.

All three are models for the runtime: other steps over the same graphs. So they run through the same
segmenter on the same engine, and their cost is counted by the same rule.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import Any

import cv2
import numpy as np

from vss_ros.core.engines import Engine, load_engine
from vss_ros.core.engines.wrapper import EngineWrapper
from vss_ros.core.errors import MissingLibraryError, ModelError, SettingsError
from vss_ros.core.frame import Answer, Frame
from vss_ros.core.model.cost import Cost, frame_costs, graph_costs, step_macs
from vss_ros.core.model.folder import ModelFolder, load_model
from vss_ros.core.model.steps import CARRIED
from vss_ros.core.open_segmenter import make_segmenter
from vss_ros.core.resize import fit_labels
from vss_ros.core.settings import EngineSettings, StreamSettings

MODEL, WARP_ONLY, PER_FRAME = 'model', 'warp only', 'per frame'
WARP, WARPED, DECIDE = 'warp', 'warped', 'decide'  # a stage, what it gives, and the stage that is ours
PARTS = {'full': 1, 'half': 2, 'quarter': 4}  # pixels per decision, by the model's option `decision`

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subject:
    """One row of the report.

    Attributes:
        name: unique among the subjects.
        kind: `model`, `warp only` or `per frame`.
        settings: of its streams; when a frame is a key frame, and whether that is computed in the background,
            is for the protocols to say. `correction_interval` is that of the model where none was asked for,
            and 1 where it has no step for frames between.
        costs: of one run of each graph; None where onnx is not installed.
    """

    name: str
    kind: str
    model: ModelFolder
    engine: Engine
    settings: StreamSettings
    costs: Mapping[str, Cost] | None

    @property
    def propagates(self) -> bool:
        return self.model.propagates

    @property
    def gmacs(self) -> dict[str, float] | None:
        """10^9 multiply-adds of each step, in all regions; without flow that the host brings."""
        if self.costs is None:
            return None
        macs = step_macs(self.model.steps, frame_costs(self.costs, self.model, self.settings))
        return {step: count / 1e9 for step, count in macs.items()}

    def stream(self, interval: int, background_delay: int = 0, runs: Counter[str] | None = None) -> Stream:
        """A new stream with a key frame every `interval` frames.

        Args:
            background_delay: frames until a key frame takes effect, because it is computed in the
                background; 0: in the foreground.
            runs: counts how often each graph is run.
        """
        return Stream(self, interval, background_delay, Counter() if runs is None else runs)

    def mean_gmacs(self, distance: int) -> float | None:
        """Cost of a frame: (key + l * propagated) / (l + 1), l = distance (DAVSS eq. 8).

        Of the l frames those that are carried take that step instead.
        """
        gmacs = self.gmacs
        if gmacs is None:
            return None
        corrected = distance // self.settings.correction_interval
        propagated = gmacs.get('propagated', gmacs['key'])
        carried = (distance - corrected) * gmacs.get(CARRIED, 0.0)
        return (gmacs['key'] + corrected * propagated + carried) / (distance + 1)

    def gmacs_of(self, runs: Mapping[str, int], frames: int) -> float | None:
        """Cost of a frame, 10^9 multiply-adds, of the graphs that were run for so many frames."""
        if self.costs is None or not frames:
            return None
        macs = sum(self.costs[graph].macs * count for graph, count in runs.items() if graph in self.costs)
        return macs / frames / 1e9


class Stream:
    """A segmenter that lets the warped scores of its last step be seen."""

    def __init__(self, subject: Subject, interval: int, background_delay: int, runs: Counter[str]) -> None:
        self._recorder = _Recorder(subject.engine, runs)
        settings = replace(
            subject.settings,
            key_frame_interval=interval,
            background_key_frames=background_delay > 0,
            background_delay_frames=background_delay,
        )
        self._segmenter = make_segmenter(subject.model, self._recorder, settings)
        self._is_whole = settings.region_count == 1
        self._model = subject.model

    def answers(self, frame: Frame) -> Iterator[Answer]:
        """Segments the next frame, see `VideoSegmenter.answers`."""
        self._recorder.warped = None
        yield from self._segmenter.answers(frame)

    def request_key_frame(self) -> None:
        """Makes the next frame a key frame."""
        self._segmenter.request_key_frame()

    def flush(self) -> Iterator[Answer]:
        """Gives the answers that are owed, see `VideoSegmenter.flush`."""
        yield from self._segmenter.flush()

    def close(self) -> None:
        """Ends the stream. A key frame that is still in work in the background is finished first, and counts.

        Were it dropped, how often a graph was run would depend on how far the other thread has come.
        """
        background = self._segmenter.background
        while background is not None and background.is_busy:
            background.follow()
            background.take()  # waits for it once its delay is over
        self._segmenter.close()

    def warped_mask(self, size: tuple[int, int]) -> np.ndarray | None:
        """The mask that the answer just taken would have without correction, uint8 (H, W).

        None on a key frame, and so for models whose results are late: they compute every frame in full. None
        on a frame that is only carried and where images are cut into regions, too.
        """
        if self._recorder.warped is None or not self._is_whole:
            return None
        scores = self._recorder.to_host(self._recorder.warped)[0]
        return fit_labels(decide(scores, self._model)[0], size)


def load_subjects(
    names: list[str],
    engines: list[EngineSettings],
    settings: StreamSettings,
    warp_only: bool,
    per_frame: bool,
) -> list[Subject]:
    """Loads models, and makes of each the rows that were asked for, once for each engine.

    With several engines a model carries the engine's name, as if it were several models.

    Args:
        settings: see `Subject`; rows of every frame in full have no motion but that of the model.

    Raises:
        ModelError, EngineError, MissingLibraryError: a model cannot be loaded.
        SettingsError: the models do not share one set of classes, or two have one name.
    """
    subjects: list[Subject] = []
    for name, engine in product(names, engines):
        model = load_model(name)
        loaded = load_engine(model, engine)
        if len(engines) > 1:
            described = loaded.describe()
            model = replace(model, name=f'{model.name}, {described["engine"]} {described["precision"]}')
        if subjects:
            _check_same_classes(model, subjects[0].model)
        if any(model.name == subject.name for subject in subjects):
            raise SettingsError(f'two models are called {model.name}; give each its own name')
        subjects.append(_subject(model, MODEL, loaded, settings))
        if warp_only and (variant := without_correction(model)) is not None:
            subjects.append(_subject(variant, WARP_ONLY, _Decider(loaded, variant), settings))
        elif warp_only:
            _log.warning('%s has no stage that warps scores; there is no row of warping alone', model.name)
        if per_frame and model.propagates:
            own_motion = replace(settings, motion=StreamSettings.motion)
            subjects.append(_subject(in_full(model), PER_FRAME, loaded, own_motion))
    return subjects


def load_reference(name: str, settings: EngineSettings, judged: ModelFolder) -> Subject:
    """A model that computes every frame in full, the image uncut.

    Raises:
        ModelError, EngineError, MissingLibraryError: it cannot be loaded.
        SettingsError: it has other classes than the model that is judged by it.
    """
    model = load_model(name)
    _check_same_classes(model, judged)
    model = in_full(model) if model.propagates else model
    return _subject(model, PER_FRAME, load_engine(model, settings), StreamSettings())


def _check_same_classes(model: ModelFolder, other: ModelFolder) -> None:
    if model.classes != other.classes:
        raise SettingsError(
            f'{model.name} is for {model.classes.name}, {other.name} for {other.classes.name}; evaluate '
            'models of one class set only'
        )


def _subject(model: ModelFolder, kind: str, engine: Engine, settings: StreamSettings) -> Subject:
    name = model.name if kind == MODEL else f'{model.name}, {kind}'
    try:
        costs = graph_costs(model)
    except (MissingLibraryError, ModelError):
        costs = None
    settings = replace(
        settings,
        correction_interval=model.corrects_every(settings.correction_interval),
        max_frame_gap_s=float('inf'),  # frames of a clip follow each other, whatever their stamps say
        background_key_frames=False,
    )
    return Subject(name, kind, model, engine, settings, costs)


def in_full(model: ModelFolder) -> ModelFolder:
    """The model that takes every frame for a key frame."""
    return replace(model, steps={'key': model.steps['key']}, state={}, delay_frames=0, correction_interval=1)


def without_correction(model: ModelFolder) -> ModelFolder | None:
    """The model that warps its scores and does nothing else, as DFF does.

    It goes from the same frames as the model, along the same flows. Its last stage, `decide`, is no graph:
    the engine that knows it is made by `load_subjects`. None if the model has no stage `warp` that gives
    scores.
    """
    stages = model.steps.get('propagated', ())
    if WARP not in stages or WARP not in model.graphs:
        return None
    warped = model.graphs[WARP].outputs.get(WARPED)
    if warped is None or warped.shape[1] != len(model.classes):
        return None
    stages = stages[: stages.index(WARP) + 1]
    taken = {name for stage in stages if stage in model.graphs for name in model.graphs[stage].inputs}
    state = {output: name for output, name in model.state.items() if name in taken}
    between = {step: (*stages, DECIDE) for step in model.steps if step != 'key'}
    variant = replace(model, steps={**model.steps, **between}, state=state)
    known = model.graphs[WARP].outputs
    return variant if all(warped in known for warped in carried_by_warp(variant).values()) else None


def carried_by_warp(model: ModelFolder) -> dict[str, str]:
    """What the next frame's warp takes -> the output of this frame's warp that it is.

    `warp` gives `warped` for `previous_scores`, and `warped_x` for any other `previous_x`.
    """
    taken = model.graphs[WARP].inputs
    names = {
        output: name.removeprefix('previous_')
        for output, name in model.state.items()
        if name in taken and name != output  # else it stays as the key frame left it
    }
    return {output: WARPED if name == 'scores' else f'{WARPED}_{name}' for output, name in names.items()}


def decide(scores: np.ndarray, model: ModelFolder) -> tuple[np.ndarray, np.ndarray]:
    """Class and confidence of every pixel, as the graphs of a model decide them.

    Args:
        scores: class logits, float (K, h, w).
        model: its options say where the class is decided: at the image's size H x W, a half or a quarter of
            it, and whether the corners of both grids lie upon each other.

    Returns:
        mask: class ids, uint8 (H / part, W / part).
        confidence: round(255 * largest class probability), uint8, of the same size.
    """
    height, width = model.image_size
    part = PARTS.get(str(model.options.get('decision', 'full')), 1)
    planes: np.ndarray = np.ascontiguousarray(scores.transpose(1, 2, 0), np.float32)
    small = (width // part, height // part)
    if planes.shape[1::-1] != small:
        resized = corners_aligned if model.options.get('align_corners', False) else cv2.resize
        planes = resized(planes, small)
    mask = planes.argmax(axis=2).astype(np.uint8)
    confidence = 255 / np.exp(planes - planes.max(axis=2, keepdims=True)).sum(axis=2)
    return mask, np.rint(confidence).astype(np.uint8)


def corners_aligned(planes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Planes (h, w, K) resized bilinearly to (width, height), the centres of their corners on each other."""
    (width, height), (rows, columns) = size, planes.shape[:2]
    wide = np.tensordot(_between(columns, width), planes, (1, 1))  # (width, h, K)
    return np.ascontiguousarray(np.tensordot(_between(rows, height), wide, (1, 1)))


@lru_cache(maxsize=8)
def _between(given: int, wanted: int) -> np.ndarray:
    """Shares of `given` values in each of `wanted` ones, float32 (wanted, given), ends on ends.

    Not by `cv2.remap`, which rounds places to 1/32 before OpenCV 4.12.
    """
    place = np.linspace(0, given - 1, wanted)
    return np.maximum(1 - np.abs(place[:, None] - np.arange(given)), 0).astype(np.float32)


class Counting(EngineWrapper):
    """Counts the graphs that are run, on a second thread too."""

    def __init__(self, engine: Engine, runs: Counter[str]) -> None:
        super().__init__(engine)
        self._runs = runs

    def run(self, graph: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
        self._runs[graph] += 1
        return super().run(graph, tensors)


class _Recorder(Counting):
    """Keeps the warped scores that pass by."""

    warped: Any = None

    def run(self, graph: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
        outputs = super().run(graph, tensors)
        self.warped = outputs.get(WARPED, self.warped)
        return outputs


class _Decider(EngineWrapper):
    """Knows one stage more: `decide`, which takes the warped scores for the result."""

    def __init__(self, engine: Engine, model: ModelFolder) -> None:
        super().__init__(engine)
        self._model = model
        self._carried = carried_by_warp(model)

    def run(self, graph: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
        if graph != DECIDE:
            return super().run(graph, tensors)
        mask, confidence = decide(self.to_host(tensors[WARPED])[0], self._model)
        carried = {output: tensors[warped] for output, warped in self._carried.items()}
        return {**carried, 'mask': mask[None], 'confidence': confidence[None]}

    def to_host(self, tensor: Any) -> np.ndarray:
        return tensor if isinstance(tensor, np.ndarray) else super().to_host(tensor)
