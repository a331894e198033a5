"""Who publishes on an image topic, and what their numbers say about images that never came."""

from __future__ import annotations

import time
from collections import deque

from rclpy.node import Node

MAX_MISSED = 10_000  # a larger gap in the publisher's numbers is another publisher
SHARED_S = 10.0  # within which images of several publishers show that these take turns
TURNS = 3  # a publisher that was started again is one


class Publishers:
    """The publishers of one topic.

    Threads: the executor's alone.

    Args:
        name: of the topic, before it is remapped.
    """

    def __init__(self, node: Node, name: str) -> None:
        self._node = node
        self._name = name
        self._last_number = 0
        self._turns: deque[float] = deque(maxlen=TURNS)  # when images came that do not follow from the last
        self._ids: set[tuple[int, ...]] = set()
        self._have_changed = False  # so the next image may be numbered by another one
        self._has_gone_back = False  # the number of an image since the last look: they are of several
        self._missed = 0  # since the last look, if all images since are of one publisher
        self.names: list[str] = []  # of their nodes, with type and reliability, see `look`

    @property
    def take_turns(self) -> bool:
        """Whether images of several publishers come, as far as is known.

        One that died stays among them for a while, and one may have nothing to say.
        """
        turns = len(self._turns) == TURNS and time.monotonic() - self._turns[0] < SHARED_S
        return len(self.names) > 1 and turns

    def look(self) -> int:
        """Notes in `names` who is there now.

        Returns:
            how many images never came since the last look. If someone came or went meanwhile, also if only
            the numbers tell so, these were of several and say nothing: 0.
        """
        infos = self._node.get_publishers_info_by_topic(self._name)  # which it remaps, once
        ids = {tuple(info.endpoint_gid) for info in infos}
        if ids != self._ids or self._has_gone_back:
            self._have_changed, self._missed = True, 0
        self._has_gone_back = False
        self._ids = ids
        self.names = [
            f'{info.node_namespace.rstrip("/")}/{info.node_name} ({info.topic_type}, '
            f'{info.qos_profile.reliability.name.lower().replace("_", " ")})'
            for info in infos
        ]
        missed, self._missed = self._missed, 0
        return missed

    def start_over(self) -> None:
        """The next image is the first, of those who are there now."""
        self.look()
        self._last_number = 0

    def numbered(self, number: int) -> bool:
        """Notes that an image came.

        Args:
            number: which of its publisher's messages it is, from 1; 0 where the middleware does not count.
        Returns:
            whether it follows the image before, as far as is known.
        """
        between = number - self._last_number - 1
        follows = not (self._last_number and between)  # else: or it is another publisher's
        is_of_one = len(self.names) <= 1 and not self._have_changed  # numbers of several say nothing
        if not follows and 0 < between < MAX_MISSED and is_of_one:
            self._missed += between
        if number <= self._last_number or not number:
            self._turns.append(time.monotonic())
            self._has_gone_back = True  # maybe of one that has left again before anyone looks
        self._have_changed = False
        self._last_number = number
        return follows
