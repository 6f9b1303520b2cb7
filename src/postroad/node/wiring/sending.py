"""What may be sent (`check.sending`), put together for one worker: its counts, its limits, and the mail to the
postmaster when somebody has reached a limit."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

from postroad.check.sending import WINDOWS_S, SendingLimits, SendingOptions
from postroad.check.tally import Tally, TallyFrame
from postroad.mail.envelope import Peer
from postroad.mail.event import Event, Noted
from postroad.maps.face import Map
from postroad.receive import local_socket
from postroad.report.notice import notice
from postroad.report.options import ReportOptions
from postroad.report.own_mail import acceptance
from postroad.store.values import Failure, Stored

TOLD_MAX: Final = 10_000  # limits of which the office was told, until the oldest is forgotten

Tell = Callable[[TallyFrame], None]
Reached = Callable[[str, str], None]


class Sending:
    """`tell`, `reached`: to the office. `accept(stored, events, done)`, `queued(stored)`: spool and queue."""

    def __init__(
        self,
        *,
        tell: Tell,
        reached: Reached,
        later: Callable[[float, Callable[[], None]], Any],
        now_us: Callable[[], int],
        new_id: Callable[[], int],
        accept: Callable[[Stored, tuple[Event, ...], Callable[[Failure | None], None]], None],
        queued: Callable[[Stored], None],
        log: Callable[[Event], None],
    ) -> None:
        self._tally = Tally(WINDOWS_S, tell, later)
        self._reached = reached
        self._now_us = now_us
        self._new_id = new_id
        self._accept = accept
        self._queued = queued
        self._log = log
        self._told: dict[tuple[str, int], None] = {}
        self._report = ReportOptions()
        self.limits = SendingLimits(self._tally, now_us, self._tell_office, _user_of)

    def take(self, options: SendingOptions, maps: tuple[Map, ...], report: ReportOptions) -> None:
        """Settings."""
        self.limits.take(options, maps)
        self._report = report

    def hear(self, told: TallyFrame) -> None:
        """The counts of the other workers."""
        self._tally.hear(told, self._now_us())

    def forget(self, keys: tuple[str, ...]) -> None:
        """An operator wants these to begin anew."""
        self._tally.forget(keys)
        self._told.clear()

    def _tell_office(self, key: str, text: str) -> None:
        """Once in an hour for each limit; the office knows whether the postmaster has heard of it."""
        place = key, self._now_us() // int(WINDOWS_S[0] * 1e6)
        if place in self._told:
            return
        while len(self._told) >= TOLD_MAX:
            del self._told[next(iter(self._told))]
        self._told[place] = None
        self._reached(key, text)

    def tell_postmaster(self, text: str, lines: tuple[str, ...] = ()) -> None:
        """An office wants the postmaster to know. Without `lines`: that a limit is reached."""
        now_us = self._now_us()
        lines = lines or (
            f"{text[0].upper()}{text[1:]}.", "",
            "`postroad limits` shows what was sent; `postroad limits reset NAME` sets the counts of a",
            "name to 0. You hear of this limit once a day.",
        )  # fmt: skip
        made = notice(f"{text[0].upper()}{text[1:]}", lines, self._report, self._new_id(), now_us)
        if made is not None:
            self._accept(made, (acceptance(made.envelope),), lambda failure: self._kept(made, failure))

    def _kept(self, made: Stored, failure: Failure | None) -> None:
        if failure is None:
            self._queued(made)
        else:
            text = f"a message to the postmaster could not be stored: {failure.text}"
            self._log(Noted(self._now_us(), 0, "error", text))


def _user_of(peer: Peer) -> str:
    """The user of this machine who has called `sendmail`; "" for others, and for those who have no limits."""
    if peer.listener != local_socket.LISTENER:
        return ""
    label = peer.via.unique_id if peer.via is not None and peer.via.protocol == local_socket.SESSION else peer.hello
    name, slash, uid = label.rpartition("/uid=")
    if not slash or uid in ("0", str(os.getuid())):
        return ""
    return name
