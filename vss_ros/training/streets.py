"""Drawn clips of synthetic streets. Drawing takes seconds a clip, so they are kept on disk."""

from __future__ import annotations

import hashlib
import logging
import math
import multiprocessing
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

import vss_ros.core.synthetic
from vss_ros.core.described import Described, setting
from vss_ros.core.errors import SourceError, writing
from vss_ros.core.files.drafts import replacing
from vss_ros.core.files.user_cache import held
from vss_ros.core.processor import usable_cores
from vss_ros.core.synthetic import StreetClip
from vss_ros.training.clips import Clip, to_cells

DRIVE = 60  # frames of a drive, whose first and last frames make two clips

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StreetSettings(Described):
    """Synthetic streets drawn for the training."""

    clips: int = setting(80, 'how many', range=(1, math.inf))
    frames: int = setting(10, 'of a clip', range=(2, DRIVE))
    seed: int = setting(1000, 'of the first drive')


def draw_streets(settings: StreetSettings, height: int, width: int, cache: Path) -> list[Clip]:
    """The clips, two from each drive; those that are not in `cache` yet are drawn, in several processes.

    Args:
        cache: folder that receives one compressed file per clip, for every set of settings and every
            version of the code that draws.
    """
    folder = cache / _key(settings, height, width)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f'{number:05d}.npz' for number in range(settings.clips)]
    with held(folder / '.lock'):  # others that want the same wait
        clips = [_read(file) for file in files]
        missing = [number for number, clip in enumerate(clips) if clip is None]
        if missing:
            log.info('drawing %d clips of synthetic streets', len(missing))
            with writing(folder):
                _draw_all(partial(_draw_to, settings, height, width, folder), missing)
    return [clip or _checked(file) for clip, file in zip(clips, files, strict=True)]


def _draw_all(draw: Callable[[int], None], numbers: Sequence[int]) -> None:
    workers = min(usable_cores(), len(numbers) // 4)
    if workers < 2:
        for number in numbers:
            draw(number)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context('spawn')) as pool:
        list(pool.map(draw, numbers))


def draw_street(seed: int, number: int, frames: int, height: int, width: int, drive: int = DRIVE) -> Clip:
    """Clip `number`, with exact labels and flow."""
    street = StreetClip(seed + number // 2, drive, height, width)
    first = (number % 2) * (drive - frames)
    drawn = [street[index] for index in range(first, first + frames)]
    flows = [to_cells(f.flow.transpose(1, 2, 0)) for f in drawn[1:]]
    images, masks = [f.image for f in drawn], [f.mask for f in drawn]
    return Clip(np.stack(images), np.stack(masks), np.stack(flows))


def _draw_to(settings: StreetSettings, height: int, width: int, folder: Path, number: int) -> None:
    cv2.setNumThreads(1)  # the processes share the cores
    clip = draw_street(settings.seed, number, settings.frames, height, width)
    assert clip.flows is not None
    with replacing(folder / f'{number:05d}.npz') as draft:
        np.savez_compressed(draft, images=clip.images, labels=clip.labels, flows=clip.flows)


def _read(file: Path) -> Clip | None:
    """A kept clip; None where there is none, or a damaged one."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return Clip(arrays['images'], arrays['labels'], arrays['flows'])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning('%s is damaged (%s) and is drawn again', file, error)
        return None


def _checked(file: Path) -> Clip:
    clip = _read(file)
    if clip is None:
        raise SourceError(f'{file} cannot be read, though it was just written; is the disk full?')
    return clip


def _key(settings: StreetSettings, height: int, width: int) -> str:
    """What the clips depend on but for their number, the code that draws them included."""
    digest = hashlib.sha256(repr((settings.frames, settings.seed, DRIVE, height, width)).encode())
    for file in sorted(Path(vss_ros.core.synthetic.__file__).parent.glob('*.py')):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
