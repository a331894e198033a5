"""Opens whatever a source's name means."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vss_ros.core.errors import SettingsError, SourceError
from vss_ros.core.files.paths import user_path
from vss_ros.core.sources import Source
from vss_ros.core.sources.images import DEFAULT_RATE, SUFFIXES, ImageSource

SYNTHETIC = re.compile(r'synthetic:(\d{1,18})(?:x(\d{1,7}))?')
SYNTHETIC_FRAMES = 150
SYNTHETIC_SIZE = (360, 480)
BAG_SUFFIXES = ('.mcap', '.db3', '.bag')
MOST_RATE = 1e6  # frames per second; stamps are nanoseconds
RECORDING = b'rosbag2_bagfile_information'  # in metadata.yaml


@dataclass(frozen=True)
class SourceSettings:
    """What a user may say about a source. None leaves it to the source."""

    rate: float | None = None  # Hz; images and synthetic streets
    labels: Path | None = None  # folder of label PNGs; images
    topic: str | None = None  # of the images; bags
    mask_topic: str | None = None  # of the truth; bags
    size: tuple[int, int] | None = None  # height and width in pixels; synthetic streets


def open_source(spec: str, settings: SourceSettings | None = None) -> Source:
    """Opens a source by what its name is; the caller closes it.

    Args:
        spec: an image, a folder of images (or of `images/` and `labels/`), a video, a rosbag2 folder, a
            .mcap, .db3 or .bag file, or `synthetic:SEED` or `synthetic:SEEDxFRAMES`.

    Raises:
        SourceError: there is no such thing, or it cannot be read.
        SettingsError: a setting was given that this kind of source does not have, or that it cannot use.
        MissingLibraryError: the library that reads this kind is not installed.
    """
    settings = settings or SourceSettings()
    kind, names, open_ = _kind(spec)
    given = [name for name, value in vars(settings).items() if value is not None]
    if foreign := [name for name in given if name not in names]:
        raise SettingsError(f'{spec} is {kind}, which has no {", ".join(foreign)}; leave that out')
    if settings.rate is not None and settings.rate > MOST_RATE:
        raise SettingsError(f'rate is {settings.rate}; use {MOST_RATE:.0f} frames per second at most')
    return open_(settings)


def _kind(spec: str) -> tuple[str, tuple[str, ...], Callable[[SourceSettings], Source]]:
    """What the name means, the settings it has, and how to open it."""
    if not spec:
        raise SourceError('the source has an empty name; give a video, a folder of images or a bag')
    path = user_path(spec)
    if synthetic := SYNTHETIC.fullmatch(spec):
        seed, frames = int(synthetic[1]), int(synthetic[2] or SYNTHETIC_FRAMES)
        return 'a synthetic street', ('rate', 'size'), lambda settings: _synthetic(seed, frames, settings)
    if not path.exists():
        raise SourceError(
            f'{spec} does not exist; give a video, a folder of images, a bag or synthetic:SEEDxFRAMES'
        )
    if path.suffix in BAG_SUFFIXES or _is_recording(path):
        return 'a bag', ('topic', 'mask_topic'), lambda settings: _bag(path, settings)
    if path.is_dir() and _holds_only_bags(path):
        raise SourceError(
            f'{path} holds bags and no metadata.yaml, which an interrupted recording lacks; '
            'give one of its files, or run `ros2 bag reindex` first'
        )
    if path.is_dir() or path.suffix.lower() in SUFFIXES:
        return 'a folder of images', ('rate', 'labels'), lambda settings: _images(path, settings)
    return 'a video', (), lambda settings: _video(path)


def holds_bag(folder: Path) -> bool:
    """Whether there is a metadata.yaml, and it is that of a bag."""
    metadata = folder / 'metadata.yaml'
    return metadata.is_file() and RECORDING in metadata.read_bytes()


def _is_recording(folder: Path) -> bool:
    """Whether it is a bag; with a metadata.yaml that is damaged, whatever is no folder of images is."""
    return holds_bag(folder) or ((folder / 'metadata.yaml').is_file() and not _has_images(folder))


def _has_images(folder: Path) -> bool:
    return (folder / 'images').is_dir() or not _suffixes(folder).isdisjoint(SUFFIXES)


def _holds_only_bags(folder: Path) -> bool:
    return not _has_images(folder) and not _suffixes(folder).isdisjoint(BAG_SUFFIXES)


def _suffixes(folder: Path) -> set[str]:
    return {file.suffix.lower() for file in folder.iterdir()}


def _images(path: Path, settings: SourceSettings) -> Source:
    return ImageSource(path, DEFAULT_RATE if settings.rate is None else settings.rate, settings.labels)


def _video(path: Path) -> Source:
    from vss_ros.core.sources.video import VideoSource

    return VideoSource(path)


def _bag(path: Path, settings: SourceSettings) -> Source:
    from vss_ros.core.sources.bag import BagSource

    return BagSource(path, settings.topic, settings.mask_topic)


def _synthetic(seed: int, frames: int, settings: SourceSettings) -> Source:
    from vss_ros.core.sources.synthetic import SyntheticSource

    height, width = settings.size or SYNTHETIC_SIZE
    rate = DEFAULT_RATE if settings.rate is None else settings.rate
    return SyntheticSource(seed, frames, height=height, width=width, rate=rate)
