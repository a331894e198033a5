"""Masks as PNG files: 000000.png, 000001.png, ... in the order of the frames."""

from __future__ import annotations

import re
from pathlib import Path

import cv2

from vss_ros.core.errors import SettingsError
from vss_ros.core.files.drafts import make_folder, remove_if_empty, write_file
from vss_ros.core.frame import Frame, Segmentation

OWN_NAME = re.compile(r'\d{6,}\.png')


class MaskSink:
    """Writes one grey PNG of class ids per frame, each complete from the moment it has its name.

    Args:
        folder: made if it does not exist.
        overwrite: whether masks that lie there may be replaced; once one was written, those left over are
            removed at the end, however it came.

    Raises:
        SettingsError: masks lie there, and they may not be replaced; in `write` also if another run writes
            to this folder.
    """

    def __init__(self, folder: Path, overwrite: bool = False) -> None:
        if folder.exists() and not folder.is_dir():
            raise SettingsError(f'{folder} is a file; give a folder for the masks')
        self._may_replace = overwrite
        self._old = {path for path in folder.glob('*.png') if OWN_NAME.fullmatch(path.name)}
        if self._old and not overwrite:
            raise SettingsError(f'{folder} holds masks already; choose another folder or add --overwrite')
        self._made = make_folder(folder)
        self._folder = folder
        self._count = 0

    def write(self, frame: Frame, segmentation: Segmentation) -> None:
        path = self._folder / f'{self._count:06d}.png'
        write_file(path, cv2.imencode('.png', segmentation.mask)[1].tobytes(), self._may_replace)
        self._old.discard(path)
        self._count += 1

    def close(self) -> None:
        for path in self._old:
            path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Keeps the masks written so far: each is complete. Of two runs there is never a mixture."""
        if self._count:
            self.close()
        remove_if_empty(self._made)
