"""The reports that the node sends to other domains, put together for the one worker that sends them.

Worker 0 does it, because there is always one, and only one. Nothing runs while no report is wanted. The history of a
day is read by a process of its own (`node.collecting`); files are read and written on threads of their own.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import sqlite3
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from postroad.mail.address import is_unusable
from postroad.mail.event import Event
from postroad.node import collecting
from postroad.node.collecting import Collection
from postroad.node.wiring.world import World
from postroad.report.feedback_mail import Compressed
from postroad.report.feedback_options import FeedbackOptions
from postroad.report.feedback_places import host_of
from postroad.report.feedback_sending import COLLECT_AFTER_S, FeedbackDoors, FeedbackSending
from postroad.store import feedback_days
from postroad.store.sqlite.searching import HistoryReader
from postroad.store.values import Failure, Stored
from postroad.trust.asking import DnsQuestions
from postroad.world.dns import DnsStatus
from postroad.world.http import HttpRequest
from postroad.world.problem import Problem

THREADS: Final = 2
COLLECT_S: Final = 21_600.0  # how long counting a day may take
ADDRESSES_MAX: Final = 4  # of a server for reports that are tried
_ANSWER_MAX: Final = 4_096
_SAID_MAX: Final = 200

T = TypeVar("T")


class FeedbackReports:
    """See the module. `resolver`: the one in force."""

    def __init__(
        self, *, world: World, loop: asyncio.AbstractEventLoop, state_dir: Path, resolver: Callable[[], Any],
        new_id: Callable[[], int],
        accept: Callable[[Stored, tuple[Event, ...], Callable[[Failure | None], None]], None],
        queued: Callable[[Stored], None], log: Callable[[str, str], None],
    ) -> None:
        self._world = world
        self._loop = loop
        self._state_dir = state_dir
        self._resolver = resolver
        self._log = log
        self._options = FeedbackOptions()
        self._pool: ThreadPoolExecutor | None = None
        self._task: asyncio.Task[None] | None = None
        doors = FeedbackDoors(
            folder=state_dir / feedback_days.FOLDER, now_us=world.clock.now_us,
            names=lambda: DnsQuestions(resolver()), new_id=new_id, accept=accept, queued=queued, post=self._post,
            collect=self._collect, was_accepted=self._was_accepted, off_loop=self._off_loop, log=log,
        )  # fmt: skip
        self.sending = FeedbackSending(doors, self._options)

    def take(self, options: FeedbackOptions) -> None:
        """Settings."""
        self._options = options
        self.sending.take(options)
        if self._task is None and options.kinds and self._world.disk.threads:
            self._task = self._loop.create_task(self.sending.run())

    async def stop(self) -> None:
        """What is under way comes to an end on its thread; the rest is done after the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._pool is not None:
            self._pool.shutdown(wait=False)

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="feedback")
        return self._pool

    async def _off_loop(self, work: Callable[[], T]) -> T:
        if not self._world.disk.threads:
            return work()
        future = self._loop.run_in_executor(self._threads(), work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])  # nobody may close a file in the middle of it
            raise

    async def _collect(self, day: int) -> str:
        options = self._options
        wanted = Collection(
            str(self._state_dir), day, options.kinds, (options.contact, *options.mailboxes), options.hostname,
            options.spread_s, COLLECT_AFTER_S, options.delimiters,
        )  # fmt: skip
        if not self._world.disk.threads:
            return collecting.collect(wanted)
        ended = await self._world.programs.run(
            [sys.executable, "-m", "postroad.node.collecting"], stdin=msgspec.json.encode(wanted),
            environment=dict(os.environ), timeout_s=COLLECT_S,
        )  # fmt: skip
        if ended.exit_code == 0:
            return ""
        said = ended.output.decode("utf-8", "replace").strip()
        return ended.error or said[-1000:] or f"the process that counts the day ended with {ended.exit_code}"

    async def _was_accepted(self, id: int) -> bool | None:
        return await self._off_loop(lambda: self._in_history(id))

    def _in_history(self, id: int) -> bool | None:
        reader = HistoryReader(self._state_dir / "history", self._state_dir / "spool")
        try:
            found = bool(reader.events(id))
        except (OSError, sqlite3.Error):
            return None
        return found or (None if reader.faults else False)

    async def _post(self, uri: str, report: Compressed) -> str:
        """Posts a TLS report (RFC 8460 §5.4). "" or why it was not taken."""
        options = self._options
        addresses = await self._addresses(host_of(uri))
        if isinstance(addresses, str):
            return addresses
        try:
            fetch = self._world.fetcher(self._threads(), options.post_ca_file)
        except OSError as error:
            return f"{options.post_ca_file}: {error.strerror or error}"
        headers = (("Content-Type", report.media_type()), ("User-Agent", "Postroad"))
        answer = await fetch(HttpRequest(uri, report.octets, headers, options.post_s, _ANSWER_MAX, "POST", addresses))
        if isinstance(answer, Problem):
            return f"{answer.where}: {answer.text}"
        if 200 <= answer.status < 300:
            return ""
        said = answer.body.decode("utf-8", "replace")[:_SAID_MAX]
        return f"the server answered {answer.status} {said}".strip()

    async def _addresses(self, host: str) -> tuple[str, ...] | str:
        """The addresses of a server that may be asked; or why none may."""
        if not host:
            return "the URI names no host"
        found = await self._resolver().addresses(host)
        if found.status is not DnsStatus.FOUND:
            return f"{host}: {found.text}"
        usable = [each for each in found.records if self._options.post_private or _is_public(each)]
        return tuple(usable[:ADDRESSES_MAX]) or f"{host} has no public address ({found.records[0]})"


def _is_public(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_global and not is_unusable(address)
