"""Images on disk: a folder of them in natural order of their names, or one."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from vss_ros.core.encodings import PNG_MAGIC, decode_file, decode_labels
from vss_ros.core.errors import FrameError, SettingsError, SourceError
from vss_ros.core.frame import Frame

SUFFIXES = ('.png', '.jpg', '.jpeg')
DEFAULT_RATE = 15.0  # Hz
MOST_BYTES = 2**29  # of a file; 8192 x 8192 pixels of 16 bit take 400 MB before they are compressed
LEAST_RATE = 1e-6
PNG_PALETTE = b'\x03'  # a colour type, which lies at byte 25
_log = logging.getLogger(__name__)


class ImageSource:
    """Frames from image files, named as they are, stamped 0, 1/rate, 2/rate, ... seconds.

    Args:
        path: an image, a folder of images, or a folder with `images/` and (if there is one) `labels/` in it,
            which is passed over with a warning if it does not hold class ids of these images.
        rate: frames per second.
        labels: folder of PNGs of class ids, matched by name; an image without one has no truth. Of a folder
            of images it is said how many labels have none.

    Raises:
        SettingsError: the rate is not above 0.
        SourceError: there are no images, two have one name, or no image has a label; while iterating, a file
            cannot be read.
    """

    def __init__(self, path: Path, rate: float = DEFAULT_RATE, labels: Path | None = None) -> None:
        if not rate >= LEAST_RATE:
            raise SettingsError(f'rate is {rate}; use a number of frames per second above 0')
        folder = path / 'images' if (path / 'images').is_dir() else path
        self._rate = rate
        self._is_one_image = folder.is_file()
        self._images = [folder] if self._is_one_image else images_in(folder)
        self._labels: dict[str, Path] = {}
        if labels is not None:
            self._labels = self._labels_of(labels)
        elif folder != path and (path / 'labels').is_dir():
            try:
                self._labels = self._labels_of(path / 'labels')
            except SourceError as error:  # nobody asked for them
                _log.warning('%s: images are taken without labels: %s', path, error)

    def __len__(self) -> int:
        return len(self._images)

    @property
    def is_labelled(self) -> bool:
        return bool(self._labels)

    def __iter__(self) -> Iterator[Frame]:
        self._warn_of_unused_labels()
        for index, path in enumerate(self._images):
            image = read_image(path)
            label = self._labels.get(path.stem)
            truth = None if label is None else read_labels(label)
            if truth is not None and truth.shape != image.shape[:2]:
                raise SourceError(
                    f'{label} is {truth.shape[1]}x{truth.shape[0]}, '
                    f'its image {image.shape[1]}x{image.shape[0]}; they must be of one size'
                )
            yield Frame(image, round(index * 1e9 / self._rate), truth=truth, name=path.stem)

    def close(self) -> None:
        """Nothing is held open."""

    def _warn_of_unused_labels(self) -> None:
        names = {image.stem for image in self._images}
        unused = [label for name, label in self._labels.items() if name not in names]
        if unused and not self._is_one_image:
            _log.warning(
                '%s: %d of %d labels have the name of no image, %s for example',
                self._images[0].parent,
                len(unused),
                len(self._labels),
                min(unused, key=natural_order),
            )

    def _labels_of(self, folder: Path) -> dict[str, Path]:
        """Labels by name; one of them is read to see that they are some.

        Raises:
            SourceError: none belongs to an image, or it holds no class ids.
        """
        labels = _labels_in(folder)
        some = next((labels[image.stem] for image in self._images if image.stem in labels), None)
        if some is None:
            raise SourceError(
                f'no label in {folder} has the name of an image in {self._images[0].parent}; '
                f'expected for example {self._images[0].stem}.png{_jpeg_advice(folder)}'
            )
        read_labels(some)
        return labels


def read_image(path: Path) -> np.ndarray:
    """Reads an image file as BGR, uint8 (H, W, 3).

    Raises:
        SourceError: it cannot be read, or is cut off.
    """
    try:
        return decode_file(_read(path), cv2.IMREAD_COLOR)
    except FrameError as error:
        raise SourceError(f'{path} cannot be read: {error}') from error


def read_labels(path: Path) -> np.ndarray:
    """Reads a PNG of class ids, uint8 (H, W).

    Raises:
        SourceError: it cannot be read, or is not an 8 bit grey PNG (colours are not ids).
    """
    data = _read(path)
    try:
        return decode_labels(data)
    except FrameError as error:
        raise SourceError(f'{path} is no label: {error}{_palette_advice(data)}') from error


def _jpeg_advice(folder: Path) -> str:
    """Why files that look like labels are none."""
    is_jpeg = any(path.suffix.lower() in ('.jpg', '.jpeg') for path in _files_in(folder))
    return '; its JPEG files are no labels, since JPEG changes ids' if is_jpeg else ''


def _palette_advice(data: bytes) -> str:
    """How a PNG that has a palette becomes a label. OpenCV gives its colours, not their indices."""
    if not data.startswith(PNG_MAGIC) or data[25:26] != PNG_PALETTE:
        return ''
    return (
        '; it has a palette, as labels of VOC and DAVIS do: if its indices are class ids, write these with '
        'Pillow: Image.fromarray(numpy.array(Image.open(FILE))).save(OTHER_FILE)'
    )


def natural_order(path: Path) -> list[tuple[int, str]]:
    """Sorting key by which frame_9 comes before frame_10."""
    return [(int(part), '') if part.isdecimal() else (0, part) for part in re.split(r'(\d+)', path.name)]


def _read(path: Path) -> bytes:
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise SourceError(
                f'{path} has {size} bytes; no image that can be used has more than {MOST_BYTES}'
            )
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f'{path} cannot be read: {error.strerror}') from error


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder in natural order.

    Raises:
        SourceError: there are none, or two have one name, by which labels are found.
    """
    if not folder.is_dir():
        raise SourceError(f'{folder} does not exist; give an image or a folder of images')
    images = [path for path in _files_in(folder) if path.suffix.lower() in SUFFIXES]
    if not images:
        raise SourceError(f'{folder} holds no images; expected files ending in {", ".join(SUFFIXES)}')
    return sorted(_by_name(images).values(), key=natural_order)


def _labels_in(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise SourceError(f'{folder} does not exist; give a folder of label PNGs')
    return _by_name(path for path in _files_in(folder) if path.suffix.lower() == '.png')


def _by_name(paths: Iterable[Path]) -> dict[str, Path]:
    """Raises SourceError where two files have one name but for the suffix."""
    found: dict[str, Path] = {}
    for path in paths:
        if (other := found.setdefault(path.stem, path)) != path:
            first, second = sorted((other, path))
            raise SourceError(
                f'{first} and {second} have one name, by which images and labels are matched; take one away'
            )
    return found


def _files_in(folder: Path) -> Iterator[Path]:
    """No pipes and devices, and no hidden ones: a Mac leaves `._a.png` beside `a.png`, which is none."""
    return (path for path in folder.iterdir() if not path.name.startswith('.') and path.is_file())
