"""What is scored: a model, the same without its correction, or with every frame computed in full.

All three are models for the runtime: other steps over the same graphs. So they run through the same
segmenter on the same engine, and their cost is counted by the same rule.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from vss_ros.core.engines import Engine, load_engine
from vss_ros.core.errors import PrecisionError, SettingsError
from vss_ros.core.frame import Answer, Frame
from vss_ros.core.model.accuracy_model import EXPECTED_ACCURACY
from vss_ros.core.model.cost import Cost, frame_costs, step_macs
from vss_ros.core.model.folder import ModelFolder, load_model
from vss_ros.core.model.steps import CARRIED
from vss_ros.core.model.warm_up import warm_up
from vss_ros.core.open_segmenter import make_segmenter
from vss_ros.core.resize import fit_labels
from vss_ros.core.settings import EngineSettings, StreamSettings
from vss_ros.evaluation.comparison import check_apart, counted_costs, load_apart, report_left_out
from vss_ros.evaluation.deciding import Decider, decide
from vss_ros.evaluation.recording import Recorder
from vss_ros.evaluation.variants import in_full, without_correction

MODEL, WARP_ONLY, PER_FRAME = 'model', 'warp only', 'per frame'

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subject:
    """One row of the report.

    Attributes:
        name: unique among the subjects.
        kind: `model`, `warp only` or `per frame`.
        settings: of its streams; when a frame is a key frame, and whether that is computed in the background,
            is for the protocols to say. `correction_interval` is that of the model where none was asked for,
            and 1 where every frame after a key frame takes the same step.
        costs: of one run of each graph; None where they are not counted.
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
    def corrects(self) -> bool:
        """Whether frames after a key frame are corrected: but for the flow, a stage looks at their images.

        One that only says how far the warp can be trusted corrects nothing.
        """
        model = self.model
        stages = [stage for stage in model.steps.get('propagated', ()) if stage in model.graphs]
        return not model.computes_all_in_full and any(
            'image' in graph.inputs and graph.outputs.keys() != {EXPECTED_ACCURACY}
            for graph in (model.graphs[stage] for stage in stages if stage != 'flow')
        )

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
        self._recorder = Recorder(subject.engine, runs)
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

    With several engines a model carries the engine's name, as if it were several models. Engines that do not
    compute in the precision they were asked for are left out, and that is said.

    Args:
        settings: see `Subject`; rows of every frame in full have no motion but that of the model.

    Raises:
        ModelError, EngineError, MissingLibraryError: a model cannot be loaded.
        SettingsError: the models do not share one set of classes, or one would be scored twice.
    """
    subjects: list[Subject] = []
    refusals: list[PrecisionError] = []
    for (name, model), engine in product(load_apart(names).items(), engines):
        try:
            loaded = load_engine(model, engine)
        except PrecisionError as error:
            refusals.append(error)
            continue
        warm_up(model, loaded)  # or refuse
        if len(engines) > 1:
            described = loaded.describe()
            name = f'{name}, {described["engine"]} {described["precision"]}'
        model = replace(model, name=name)
        if subjects:
            _check_same_classes(model, subjects[0].model)
        check_apart([model.name, *(subject.name for subject in subjects)])
        costs = counted_costs(model)
        subjects.append(_subject(model, MODEL, loaded, settings, costs))
        if warp_only and (variant := without_correction(model)) is not None:
            subjects.append(_subject(variant, WARP_ONLY, Decider(loaded, variant), settings, costs))
        elif warp_only:
            _log.warning('%s has no stage that warps scores; there is no row of warping alone', model.name)
        if per_frame and model.propagates:
            own_motion = replace(settings, motion=StreamSettings.motion)
            subjects.append(_subject(in_full(model), PER_FRAME, loaded, own_motion, costs))
    report_left_out(refusals, bool(subjects))
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
    return _subject(model, PER_FRAME, load_engine(model, settings), StreamSettings(), None)


def _check_same_classes(model: ModelFolder, other: ModelFolder) -> None:
    if model.classes != other.classes:
        raise SettingsError(
            f'{model.name} is for {model.classes.name}, {other.name} for {other.classes.name}; evaluate '
            'models of one class set only'
        )


def _subject(
    model: ModelFolder,
    kind: str,
    engine: Engine,
    settings: StreamSettings,
    costs: Mapping[str, Cost] | None,
) -> Subject:
    name = model.name if kind == MODEL else f'{model.name}, {kind}'
    settings = replace(
        settings,
        correction_interval=model.corrects_every(settings.correction_interval),
        max_frame_gap_s=float('inf'),  # frames of a clip follow each other, whatever their stamps say
        background_key_frames=False,
    )
    return Subject(name, kind, model, engine, settings, costs)
