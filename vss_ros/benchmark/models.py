"""The models that `vss bench` measures, also for network sizes that they were not exported for."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from vss_ros.core.errors import torch_needed
from vss_ros.core.model.folder import ModelFolder, load_model

Size = tuple[int, int]


@contextmanager
def models_of(
    models: Sequence[ModelFolder], sizes: Sequence[Size], precisions: Sequence[str]
) -> Iterator[list[ModelFolder]]:
    """Every model in every network size, as it is if no sizes are given.

    A model for another size, or without the fp16 files that are measured, is exported from its weights to a
    folder that is gone afterwards. int8 would have to be calibrated and is left to `vss export`.

    Raises:
        MissingLibraryError: a model must be exported and PyTorch is not installed.
        ModelError: a model has no weights, or a size does not suit it.
    """
    with TemporaryDirectory(prefix='vss-bench-') as folder:
        found: list[ModelFolder] = []
        for model in models:
            for size in sizes or [model.image_size]:
                place = Path(folder) / str(len(found))
                made = model if size == model.image_size else _resized(model, size, place)
                if 'fp16' in precisions and not made.has_precision('fp16'):
                    made = _with_fp16(made, place)
                found.append(made)
        yield found


def _resized(model: ModelFolder, size: Size, place: Path) -> ModelFolder:
    with torch_needed():
        from vss_ros.exporting.export import export
        from vss_ros.exporting.weights import load_method
    height, width = size
    print(f'exporting {model.name} for {width}x{height}', file=sys.stderr, flush=True)
    return export(
        load_method(model),
        place,
        name=model.name,
        class_set=model.classes,
        image_size=size,
        expected_accuracy=model.expected_accuracy,
    )


def _with_fp16(model: ModelFolder, place: Path) -> ModelFolder:
    """A copy with fp16 files, and all that the model has already."""
    with torch_needed():
        from vss_ros.exporting.precisions import add_fp16
    print(f'exporting {model.name} in fp16', file=sys.stderr, flush=True)
    if model.path != place:
        shutil.copytree(model.path, place)
    return replace(add_fp16(load_model(place)), name=model.name)
