"""Masks on a topic of a bag, as the truth of the images with the same stamps."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from vss_ros.core.encodings import decode_labels, to_labels
from vss_ros.core.errors import FrameError, SourceError
from vss_ros.core.frame import Frame
from vss_ros.core.sources.recorded import COMPRESSED, Moment, Recorded, messages_of, open_bag, pixels_of

_log = logging.getLogger(__name__)


class BagMasks:
    """Finds the mask of a stamp while images and masks are read side by side, each in order of its stamps.

    A mask that is out of order may find its image passed by; that is told once.
    """

    def __init__(self, path: Path, topic: str) -> None:
        self._path = path
        self._topic = topic
        self._reader = open_bag(path)  # its own: a reader keeps one place in the file

    def rewind(self) -> None:
        """Begins with the first mask; called before `label`."""
        self._messages = messages_of(self._path, self._reader, self._topic)
        self._latest: dict[str, Moment] = {}
        self._count = self._left_out = self._unused = 0
        self._first_unused: Moment = 0, 0  # if there is one
        self._in_order = self._all_stamped = self._all_differ = True
        self._ahead = self._next()  # the first mask not yet passed by
        self._is_used = False  # the same one
        self._after = self._next()

    def label(self, frame: Frame, moment: Moment) -> Frame:
        """The frame of an image recorded so with its mask as truth, if there is one that can be used."""
        try:
            truth = self._at(moment)
            return frame if truth is None else replace(frame, truth=truth)
        except FrameError as error:
            self._leave_out(frame.stamp_ns, error)
            return frame

    def tell_left_out(self) -> None:
        """Tells how many masks could not be used, where it is not told yet, and how many have no image."""
        try:
            while self._ahead is not None:
                self._pass_by()
        except SourceError as error:  # damage behind the last image, which has its mask
            _log.warning('the masks were not read to their end: %s', error)
        if self._left_out > 1:
            _log.warning('%s: %d masks of %s were left out', self._path, self._left_out, self._topic)
        if self._unused:
            _log.warning(
                '%s: %d of %d masks of %s were used for no image, that at %s s for example; a mask is found '
                'by the stamp of its image, to the nanosecond',
                self._path,
                self._unused,
                self._count,
                self._topic,
                _seconds(self._first_unused),
            )

    def _at(self, moment: Moment) -> np.ndarray | None:
        """The mask of this moment, uint8 (H, W), or None. Moments are asked for in rising order."""
        self._check_order('images', moment)
        while self._ahead is not None and self._ahead.moment < moment:
            self._pass_by()
        if self._ahead is None or self._ahead.moment != moment:
            self._tell_unstamped(moment)
            return None
        if self._after is not None and self._after.moment == moment:
            raise SourceError(
                f'{self._path}: two masks of {self._topic} have the stamp {sum(moment) / 1e9:.3f} s, '
                'by which that of an image is found; leave out --mask-topic, or record with the stamps of a '
                'camera'
            )
        if self._is_used:
            self._tell_same(moment)
        self._is_used = True
        mask = self._ahead.message
        if mask.__msgtype__ == COMPRESSED:
            return decode_labels(mask.data)
        return to_labels(*pixels_of(mask))

    def close(self) -> None:
        self._reader.close()

    def _pass_by(self) -> None:
        """Goes on to the next mask; one that was used for no image is counted."""
        if self._ahead is not None and not self._is_used:
            if not self._unused:
                self._first_unused = self._ahead.moment
            self._unused += 1
        self._ahead, self._after, self._is_used = self._after, self._next(), False

    def _leave_out(self, at_ns: int, error: FrameError) -> None:
        self._left_out += 1
        if self._left_out == 1:
            _log.warning(
                '%s: the mask of %s at %.3f s is left out: %s', self._path, self._topic, at_ns / 1e9, error
            )

    def _tell_same(self, moment: Moment) -> None:
        if self._all_differ:
            self._all_differ = False
            _log.warning(
                '%s: two images have the stamp %s s, and the mask of %s with it counts as the truth of '
                'both, though it may be that of one; record with the stamps of a camera',
                self._path,
                _seconds(moment),
                self._topic,
            )

    def _tell_unstamped(self, moment: Moment) -> None:
        stamp_ns, _ = moment
        if self._all_stamped and not stamp_ns:
            self._all_stamped = False
            _log.warning(
                '%s: an image has no stamp, by which its mask of %s would be found; without, only a mask '
                'recorded at the very same time is its truth',
                self._path,
                self._topic,
            )

    def _next(self) -> Recorded | None:
        """The next mask that can be read, or None."""
        for mask in self._messages:
            self._count += 1
            if not isinstance(mask.message, FrameError):
                self._check_order(self._topic, mask.moment)
                return mask
            self._leave_out(mask.at_ns, mask.message)
        return None

    def _check_order(self, what: str, moment: Moment) -> None:
        if self._in_order and moment < self._latest.get(what, moment):
            self._in_order = False
            _log.warning(
                '%s: %s are not recorded in order of their stamps, so some images are without their mask; '
                'give the masks as a folder of PNGs named by stamp (--labels), or sort the bag',
                self._path,
                what,
            )
        self._latest[what] = moment


def _seconds(moment: Moment) -> str:
    """To the nanosecond, which no float holds."""
    return '{}.{:09d}'.format(*divmod(sum(moment), 10**9))
