"""What `vss bench` measures: one model on one engine at one interval, and the turns that contenders take."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from vss_ros.core.engines import DeviceEngine, Engine
from vss_ros.core.engines.wrapper import EngineWrapper
from vss_ros.core.model.cost import step_macs
from vss_ros.core.model.steps import STEPS
from vss_ros.core.sinks.timings import TOTAL, TimingSink

if TYPE_CHECKING:
    from vss_ros.benchmark.ceilings import Ceilings
    from vss_ros.core.frame import Answer, Frame
    from vss_ros.core.model.cost import Cost
    from vss_ros.core.open_segmenter import Segmenter

INTERVALS = (1, 3, 5, 9, 10)  # that averages are given for
TURN = 10  # frames a contender takes before the next one
UPLOAD = 'upload'
BYTES = {'fp32': 4, 'fp16': 2, 'bf16': 2, 'int8': 1}  # of the numbers that networks compute with


class StageEngine(EngineWrapper):
    """An engine that, where its device works on after `run`, is made to finish each stage before the next.

    So stages can be timed, the upload of the image apart; together they take longer than the frame. Other
    engines are handed on as they are.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._device = engine if isinstance(engine, DeviceEngine) else None
        self.finishes_stages = False
        self.uploads_ms: dict[str, float] = {}

    @property
    def is_on_gpu(self) -> bool:
        described = self._engine.describe()
        return described['device'] != 'cpu' and described['engine'] != 'openvino'

    @property
    def works_on(self) -> bool:
        """Whether stages take other times than they seem to, unless each is finished."""
        return self._device is not None

    def run(self, graph: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
        if self._device is None or not self.finishes_stages:
            return self._engine.run(graph, tensors)
        self._device.synchronise()  # what came before is not this stage's
        start = time.perf_counter()
        uploaded = self._device.upload(graph, tensors)
        self._device.synchronise()
        spent_ms = (time.perf_counter() - start) * 1e3
        self.uploads_ms[graph] = self.uploads_ms.get(graph, 0.0) + spent_ms  # once in each region
        outputs = self._engine.run(graph, {**tensors, **uploaded})
        self._device.synchronise()
        return {**uploaded, **outputs}

    def second(self) -> Engine:
        return self._engine.second()


@dataclass
class Contender:
    """One combination and what was measured of it.

    Attributes:
        network: (height, width) of what the model takes.
        stage_segmenter: takes the frames a second time, each stage finished, where the engine works on. It is
            another stream: in the first one key frames would come at other times.
        memory_mb: resident memory that loading and warming up added; 0 for a model that was loaded already.
        costs: of each graph, in all regions; None where they are not counted.
        steps: stages of each step.
    """

    model: str
    network: tuple[int, int]
    engine: StageEngine
    interval: int | str  # of key frames, or how they are scheduled
    correction_interval: int  # see `ModelFolder`
    segmenter: Segmenter
    stage_segmenter: Segmenter | None
    memory_mb: float
    costs: Mapping[str, Cost] | None
    steps: Mapping[str, Sequence[str]]
    stages: TimingSink = field(default_factory=TimingSink)
    totals: TimingSink = field(default_factory=TimingSink)
    latencies_ms: list[float] = field(default_factory=list)  # of the frames in their order

    def take_turn(self, frames: Sequence[Frame]) -> None:
        """Segments frames that follow those of the last turn."""
        self.engine.finishes_stages = False
        for answer in self._answers(self.segmenter, frames):
            self.totals.write(*answer)
            self.latencies_ms.append(sum(answer.segmentation.timings_ms.values()))
            if self.stage_segmenter is None:
                self.stages.write(*answer)
        if self.stage_segmenter is None:
            return
        self.engine.finishes_stages = True
        for answer in self._answers(self.stage_segmenter, frames):
            uploads = self.engine.uploads_ms
            timings = {UPLOAD: sum(uploads.values())} | {
                stage: ms - uploads.get(stage, 0) for stage, ms in answer.segmentation.timings_ms.items()
            }
            self.stages.write(answer.frame, replace(answer.segmentation, timings_ms=timings))

    def _answers(self, segmenter: Segmenter, frames: Sequence[Frame]) -> Iterator[Answer]:
        for frame in frames:
            self.engine.uploads_ms.clear()
            yield from segmenter.answers(frame)

    @property
    def kind(self) -> dict[str, Any]:
        """What tells it from others, as it is written to JSON."""
        return {
            'model': self.model,
            'network': list(self.network),
            'engine': self.engine.describe(),
            'key_frame_interval': self.interval,
            'correction_interval': self.correction_interval,
            'regions': self.segmenter.settings.regions,
        }

    def report(self, ceilings: Ceilings | None) -> dict[str, Any]:
        """The figures as they are written to JSON, times in milliseconds.

        Args:
            ceilings: of the processor that the engine runs on.
        """
        from vss_ros.benchmark.keys import performance

        kinds = [kind for kind in self.totals.ms if self.totals.count(kind)]
        return {
            **self.kind,
            'frames': {kind: self.totals.count(kind) for kind in kinds},
            'ms': {kind: self._stages(kind) for kind in kinds},
            'mean_ms': fmean(ms for kind in kinds for ms in self.totals.ms[kind][TOTAL]),
            'every': self._averages() if len(kinds) > 1 else {},
            'memory_mb': self.memory_mb,
            'gmac': self._gmacs(),
            'roofline': {kind: self._roofline(kind, ceilings) for kind in kinds if kind != 'mixed'},
            'ros2_benchmark': performance(self.latencies_ms, len(self.latencies_ms)),
        }

    def _stages(self, kind: str) -> dict[str, dict[str, float]]:
        def both(sink: TimingSink, stage: str) -> dict[str, float]:
            return {f'p{percent}': sink.percentile(kind, percent, stage) for percent in (50, 99)}

        stages = {stage: both(self.stages, stage) for stage in self.stages.ms[kind] if stage != TOTAL}
        return stages | {TOTAL: both(self.totals, TOTAL)}

    def _averages(self) -> dict[str, dict[str, float]]:
        """What a frame costs with a key frame every n; without n whose frames between were not measured."""
        key, propagated, carried = (self.totals.percentile(step, 50) for step in STEPS)
        averages = {}
        for n in INTERVALS:
            corrected = (n - 1) // self.correction_interval
            left = n - 1 - corrected
            # A kind of frame that did not come is NaN, and must not spoil an n that has none of it.
            averages[n] = (key + (corrected and corrected * propagated) + (left and left * carried)) / n
        return {
            str(n): {'ms': ms, 'share_of_key': ms / key} for n, ms in averages.items() if not math.isnan(ms)
        }

    def _gmacs(self) -> dict[str, float] | None:
        if self.costs is None:
            return None
        return {step: macs / 1e9 for step, macs in step_macs(self.steps, self.costs).items()}

    def _roofline(self, kind: str, ceilings: Ceilings | None) -> dict[str, dict[str, float]]:
        """For each graph with products: GMAC, megabytes, and the share of what the processor could do.

        `share` compares the time of the graph with the least time that its arithmetic or its traffic needs,
        whichever is longer. A convolution by fewer products (Winograd), or maps that stay in a cache, can
        exceed 1.
        """
        if self.costs is None or ceilings is None:
            return {}
        precision = self.engine.describe()['precision']
        arithmetic_is = 'tf32' if computes_in_tf32(self.engine.describe()) else precision
        found = {}
        for stage in self.stages.ms[kind]:
            cost = self.costs.get(stage)
            if cost is None or not cost.macs:
                continue
            seconds = self.stages.percentile(kind, 50, stage) / 1e3
            gigabytes = cost.values * BYTES[precision] / 1e9
            entry = {'gmac': cost.macs / 1e9, 'mb': gigabytes * 1e3}
            if (flops := ceilings.gflops.get(arithmetic_is)) is not None:
                arithmetic = 2 * cost.macs / 1e9 / flops
                traffic = gigabytes / ceilings.gigabytes_per_s
                entry |= {
                    'matrix_share': arithmetic / seconds,
                    'memory_share': traffic / seconds,
                    'share': max(arithmetic, traffic) / seconds,
                }
            found[stage] = entry
        return found


def computes_in_tf32(described: Mapping[str, str]) -> bool:
    """Whether an engine makes 10 bits of the 23 of fp32 in products, as GPUs do by default."""
    return described.get('tf32') == 'on'


def measure(contenders: Sequence[Contender], frames: Sequence[Frame]) -> None:
    """Lets the contenders take turns until each has segmented all frames."""
    for number, start in enumerate(range(0, len(frames), TURN)):
        first = number % len(contenders)  # nobody is always first
        for contender in [*contenders[first:], *contenders[:first]]:
            contender.take_turn(frames[start : start + TURN])
