"""What one worker has in memory, and its limits: messages, their content, lanes.

What always holds:
- `lanes` and `mails` are all there are, by destination key and by queue id; they are changed here only.
- Content in memory never exceeds `memory_max`; what does not fit is read from the spool when it is carried.
- The mail of one sender never takes all the room of the others, neither among the lanes nor within a lane.
- Fresh mail and mail from the disk do not shut each other out.

How it fails: it does not. Mail without room waits in the spool (`queue.queue`). Not here: connections
(`queue.connections`), what is taken from the spool when (`queue.loading`).
"""

from __future__ import annotations

import asyncio
from typing import Final

from postroad.mail.message import ContentFile
from postroad.mail.route import Destination
from postroad.queue.lane import Item, Lane, QueuedMessage
from postroad.queue.options import QueueOptions

_FROM_DISK: Final = "\0disk"  # as the source of lanes that were opened by mail from there
_ASIDE: Final = "\0aside"  # as the source of lanes that do not count, because all they do is wait
_ASIDE_S: Final = 5.0  # between looks for such lanes
_SHARE: Final = 16  # part of a lane that a source has even if others have filled it


class Capacity:
    """See the module."""

    def __init__(self, options: QueueOptions, loop: asyncio.AbstractEventLoop) -> None:
        self.options = options
        self.lanes: dict[str, Lane] = {}
        self.mails: dict[int, QueuedMessage] = {}
        self.octets = 0  # of content
        self._loop = loop
        self._lanes_of: dict[str, int] = {}  # how many lanes the mail of a source has opened
        self._idling: set[Lane] = set()  # lanes that only waited when it was last looked
        self._look_aside_at = 0.0

    def take(self, options: QueueOptions) -> None:
        """Takes new settings."""
        self.options = options

    # -- messages

    def add(self, mail: QueuedMessage) -> None:
        """Adds a message. Its content stays in memory if there is room."""
        self.mails[mail.envelope.id] = mail
        content = mail.content
        if isinstance(content, bytes):
            octets = len(content)
            if self.octets + octets > self.options.memory_max:
                mail.content = None
            else:
                self.octets += octets
                mail.octets = octets

    def remove(self, mail: QueuedMessage) -> None:
        """Removes a message."""
        self.mails.pop(mail.envelope.id, None)
        self.octets -= mail.octets
        mail.octets = 0
        mail.content = None if not isinstance(mail.content, ContentFile) else mail.content

    @property
    def is_full(self) -> bool:
        """Whether memory holds so many messages that none is taken from the disk."""
        return len(self.mails) > self.options.messages_max + self.options.messages_max // 8

    # -- lanes

    def open(self, destination: Destination, mail: QueuedMessage) -> Lane:
        """Opens a lane for this mail."""
        source = mail.source if mail.states is None else _FROM_DISK
        lane = self.lanes[destination.key] = Lane(destination, source)
        self._lanes_of[source] = self._lanes_of.get(source, 0) + 1
        return lane

    def close(self, lane: Lane) -> None:
        del self.lanes[lane.destination.key]
        self._uncount(lane)

    def is_open(self, lane: Lane) -> bool:
        return self.lanes.get(lane.destination.key) is lane

    @property
    def disk_lanes(self) -> int:
        """The number of lanes that mail from the disk has opened."""
        return self._lanes_of.get(_FROM_DISK, 0)

    def may_wait(self, lane: Lane, item: Item) -> bool:
        """Whether there is room in memory for it. One source never takes all the room of the others: it may open at
        most as many lanes as it leaves free, and in a full lane each source still has a share."""
        options, mail = self.options, item.mail
        if lane.unused:
            most = self._room(options.lanes_max, mail)
            left = most - len(self.lanes) + self._lanes_of.get(_ASIDE, 0)
            if left < 0:
                self.set_aside()
            if left < 0 or (mail.states is None and self._lanes_of.get(mail.source, 0) > left + 1):
                return False
        ready_max = options.ready_max if mail.priority <= 0 else 2 * options.ready_max
        if len(lane.ready) < ready_max and len(self.mails) <= self._room(options.messages_max, mail):
            return True
        return (
            mail.states is None
            and lane.ready.count(mail.source) < options.ready_max // _SHARE
            and len(lane.ready) < 2 * options.ready_max
            and len(self.mails) <= 2 * options.messages_max
        )

    @staticmethod
    def _room(most: int, mail: QueuedMessage) -> int:
        """The limit for a message. Mail from the disk gets a quarter more, so fresh mail never takes all the room."""
        return most if mail.states is None else most + most // 4

    def set_aside(self) -> None:
        """Makes room for another lane: lanes that have only waited for a permit or a rate since the last look do not
        count until they get it. Otherwise a few of them would keep out mail that could be sent. `messages_max` still
        limits what they hold in memory."""
        if self._loop.time() < self._look_aside_at:
            return
        self._look_aside_at = self._loop.time() + _ASIDE_S
        idling = {
            lane
            for lane in self.lanes.values()
            if (lane.asked or lane.paying) and not lane.busy and not lane.opening and lane.source != _ASIDE
        }
        for lane in idling & self._idling:
            self._count_as(lane, _ASIDE)
        self._idling = idling

    def counts_again(self, lane: Lane) -> None:
        """Counts the lane again: it got what it waited for."""
        if lane.source == _ASIDE:
            self._count_as(lane, _FROM_DISK)

    def _count_as(self, lane: Lane, source: str) -> None:
        if self.is_open(lane):
            self._uncount(lane)
            lane.source = source
            self._lanes_of[source] = self._lanes_of.get(source, 0) + 1

    def _uncount(self, lane: Lane) -> None:
        if self._lanes_of[lane.source] > 1:
            self._lanes_of[lane.source] -= 1
        else:
            del self._lanes_of[lane.source]
