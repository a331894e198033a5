"""Masks as PNG files, named as their frames are, or 000000.png, 000001.png, ... in the order of these."""

from __future__ import annotations

import logging
import re
from itertools import chain, count
from pathlib import Path

import cv2

from vss_ros.core.errors import SettingsError
from vss_ros.core.files.drafts import make_folder, remove_if_empty, write_file
from vss_ros.core.frame import Frame, Segmentation

NUMBER = re.compile(r'\d{6,}')
_log = logging.getLogger(__name__)


class MaskSink:
    """Writes one grey PNG of class ids per frame, each complete from the moment it has its name.

    A name that comes again, as a stamp may in a bag, gets `-2`, `-3`, ... behind it.

    Args:
        folder: made if it does not exist.
        overwrite: whether PNGs that lie there may be replaced; once one was written, masks left over that are
            named by number or stamp are removed at the end, however it came. Of other PNGs it is told.

    Raises:
        SettingsError: PNGs lie there, and they may not be replaced; in `write` also if another run writes to
            this folder.
    """

    def __init__(self, folder: Path, overwrite: bool = False) -> None:
        if folder.exists() and not folder.is_dir():
            raise SettingsError(f'{folder} is a file; give a folder for the masks')
        self._may_replace = overwrite
        self._old = {path for path in folder.glob('*.png') if not path.name.startswith('.')}
        if self._old and not overwrite:
            raise SettingsError(f'{folder} holds PNGs already; choose another folder or add --overwrite')
        self._made = make_folder(folder)
        self._folder = folder
        self._written: set[str] = set()

    def write(self, frame: Frame, segmentation: Segmentation) -> None:
        name = self._free(frame.name or f'{len(self._written):06d}')
        path = self._folder / f'{name}.png'
        write_file(path, cv2.imencode('.png', segmentation.mask)[1].tobytes(), self._may_replace)
        self._old.discard(path)
        self._written.add(name)

    def close(self) -> None:
        left = {path for path in self._old if NUMBER.fullmatch(path.stem)}
        for path in left:
            path.unlink(missing_ok=True)
        if others := self._old - left:
            _log.warning(
                '%s: %d PNGs are not of this run, %s for example', self._folder, len(others), min(others).name
            )

    def discard(self) -> None:
        """Keeps the masks written so far: each is complete. Numbers are never of two runs."""
        if self._written:
            self.close()
        remove_if_empty(self._made)

    def _free(self, name: str) -> str:
        """The name, or with a number behind it where this run has used it."""
        numbered = (f'{name}-{number}' for number in count(2))
        return next(free for free in chain([name], numbered) if free not in self._written)
