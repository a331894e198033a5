"""What the results of a step say about the frame that they belong to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vss_ros.core.engines import Engine
from vss_ros.core.frame import UNLABELLED, Answer, Frame, Segmentation
from vss_ros.core.model.accuracy_model import EXPECTED_ACCURACY
from vss_ros.core.resize import fit, fit_labels
from vss_ros.core.settings import StreamSettings
from vss_ros.core.stream.stopwatch import Stopwatch


@dataclass(frozen=True)
class Owed:
    """A frame that waits for its answer, and what is known of it; see `Segmentation`."""

    frame: Frame
    is_key: bool
    is_carried: bool
    age_frames: int
    age_ns: int
    reset_reason: str | None


def answer_to(
    owed: Owed,
    tensors: Mapping[str, Any],
    engine: Engine,
    settings: StreamSettings,
    image_size: tuple[int, int],
    clock: Stopwatch,
) -> Answer:
    """Reads mask and confidence from the engine and gives the mask at the size of the frame.

    Args:
        tensors: of the step whose results are those of the frame.
        image_size: (height, width) of the model's images.
        clock: gets the laps `download` and `output`.
    """
    frame = owed.frame
    size = frame.size if settings.output_size == 'input' else image_size
    mask = engine.to_host(tensors['mask'])[0]
    confidence = engine.to_host(tensors['confidence'])[0]
    corrected = tensors.get('corrected')
    corrected_share = None if corrected is None else float(engine.to_host(corrected).item())
    expected_accuracy = expected_accuracy_in(tensors, engine)
    clock.lap('download')
    mask = fit_labels(mask, size)
    if settings.confidence_threshold > 0:
        confidence = fit(confidence, size)  # as `Segmentation.confidence` would, so not twice
        doubtful = confidence < settings.confidence_threshold * 255
        mask = np.where(doubtful, np.uint8(UNLABELLED), mask)
    clock.lap('output')
    segmentation = Segmentation(
        mask=mask,
        model_confidence=confidence,
        is_key=owed.is_key,
        is_carried=owed.is_carried,
        age_frames=owed.age_frames,
        age_ns=owed.age_ns,
        stamp_ns=frame.stamp_ns,
        reset_reason=owed.reset_reason,
        timings_ms=clock.laps_ms,
        corrected_share=corrected_share,
        expected_accuracy=expected_accuracy,
        read_distortion=_distortion_reader(tensors.get('distortion'), engine, size),
    )
    return Answer(frame, segmentation)


def expected_accuracy_in(tensors: Mapping[str, Any], engine: Engine) -> float | None:
    """The tensor `expected_accuracy` of a step, if it gave one."""
    expected = tensors.get(EXPECTED_ACCURACY)
    return None if expected is None else float(read(expected, engine).item())


def read(tensor: Any, engine: Engine) -> np.ndarray:
    """A tensor of the engine's, or one that the host brought."""
    return tensor if isinstance(tensor, np.ndarray) else engine.to_host(tensor)


def _distortion_reader(tensor: Any, engine: Engine, size: tuple[int, int]) -> Callable[[], np.ndarray] | None:
    """Reads the distortion map only when somebody asks for it."""
    if tensor is None:
        return None

    def read_distortion() -> np.ndarray:
        distortion = engine.to_host(tensor)[0, 0].astype(np.float32)
        return fit(np.clip(np.rint(distortion * 255), 0, 255).astype(np.uint8), size)

    return read_distortion
