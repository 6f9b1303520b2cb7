"""The supervisor's guard: counts that hold for the whole node (`check.tally`), and the bans.

Workers send their counts, and get those of the others and the bans; they never wait for an answer. Bans are made here:
by the node itself if a client or an account exceeds a limit of `[bans]`, or by an operator (`postroad bans`); networks
that are exempt, and those that a listener trusts, are never banned by the node.

What always holds: a change by an operator is in the file before he is told; a ban by the node is in force at once, and
in the file soon after; a ban ends by itself. How it fails: if the file cannot be written, bans hold until the node
stops, the log says so, and writing is tried again.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from postroad.check import bans as banned
from postroad.check import reports, verified
from postroad.check.banning import BanRequest, BanResult, apply, fault_of
from postroad.check.bans import Ban, Bans
from postroad.check.client import limit_of, subject_of, troubles_of
from postroad.check.tally import ACCOUNT_FAILURES, FAILURES, OFFENCES, REPORTS, SESSIONS, TallyFrame, TallyOffice
from postroad.config import options
from postroad.node.frames import BansTold, TallyForgotten, TallyTold, ToWorker
from postroad.world.problem import Problem

if TYPE_CHECKING:
    from postroad.config.settings import Settings

WINDOWS: Final = 5
RETRY_S: Final = 5.0  # until the file is tried again that could not be written

Say = Callable[[str, str], None]


class Guard:
    """`settings()`: as they are now. `send(worker, frame)`: to one worker; `workers()`: the numbers of those
    that serve; `processes()`: of those, too, that are about to."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        send: Callable[[int, ToWorker], None],
        workers: Callable[[], Sequence[int]],
        processes: Callable[[], Sequence[int]],
        now_us: Callable[[], int],
        say: Say,
    ) -> None:
        self._settings = settings
        self._send = send
        self._workers = workers
        self._processes = processes
        self._now_us = now_us
        self._say = say
        self._bans = Bans()
        self._changed = self._written = 0  # how often the bans have changed, and what of it is in the file
        self._writing: asyncio.Task[str] | None = None
        self._pause_until = 0.0
        self._limits_of: Settings | None = None
        self._read_limits()
        self._office = TallyOffice(
            WINDOWS, lambda number, told: send(number, TallyTold(told)), self._limit, self._passed
        )

    # ---- Workers

    def worker_starts(self, number: int) -> None:
        """It is to know who is banned before it is told to serve."""
        self._send(number, BansTold(tuple(self._bans)))

    def worker_up(self, number: int) -> None:
        self._office.worker_up(number)

    def worker_died(self, number: int) -> None:
        self._office.worker_died(number)

    def take_counts(self, number: int, told: TallyFrame) -> None:
        self._office.take_counts(number, told)

    @property
    def sessions(self) -> int:
        """Those of the whole node."""
        return self._office.sessions(SESSIONS)

    @property
    def count(self) -> int:
        """Bans in force."""
        return len(self._bans)

    # ---- Limits

    def _read_limits(self) -> None:
        settings = self._settings()
        if settings is not self._limits_of:
            self._limits_of = settings
            self._clients, self._options = options.client_options(settings), options.ban_options(settings)
            self._reports = options.report_limits(settings)
            self._verify = options.verify_options(settings)
            trusted = {text for listener in settings.listener for text in listener.trusted_networks}
            self._exempt = [ipaddress.ip_network(text) for text in {*self._options.exempt, *trusted} - {"unix"}]

    def _limit(self, key: str) -> int:
        self._read_limits()
        if key.startswith(REPORTS):
            return reports.limit_of(key, self._reports)
        return verified.limit_of(key, self._verify) or limit_of(key, self._clients, self._options)

    def _passed(self, key: str) -> None:
        """What was counted within the time has come to its limit."""
        kind, whom = key[:1], key[1:]
        if kind not in (OFFENCES, FAILURES, ACCOUNT_FAILURES):
            return
        options, is_account = self._options, kind == ACCOUNT_FAILURES
        what = "sessions ended because of errors or refusals" if kind == OFFENCES else "failed authentications"
        now_us = self._now_us()
        whom = whom if is_account else subject_of(whom)
        if is_account:
            if self._bans.of_account(whom, now_us) is not None:
                return
        elif self._is_exempt(whom) or self._bans.of_subject(whom, False, now_us) is not None:
            return
        reason = f"{self._limit(key)} {what} within {options.window_s:g} s"
        ban = Ban(whom, now_us, now_us + int(options.time_s * 1e6), reason, "", is_account)
        self._add(ban)
        whom = f"the account {whom!r}" if is_account else whom
        self._say("warning", f"banned {whom} for {options.time_s:g} s: {reason}; `postroad bans lift` ends it")

    def _is_exempt(self, client: str) -> bool:
        network = ipaddress.ip_network(client)
        return any(
            network.version == exempt.version and network.overlaps(exempt)
            for exempt in self._exempt
        )

    # ---- Bans

    def load(self) -> str:
        """The bans of the file. "" or what is wrong with it."""
        found = banned.read(Path(self._settings().state_dir))
        if isinstance(found, Problem):
            return str(found)
        self._bans = found
        self._bans.expire(self._now_us())
        return ""

    def look(self) -> None:
        """To be called every second: what is over ends, what is not in the file goes there."""
        for ban in self._bans.expire(self._now_us()):
            self._changed += 1
            self._tell_bans((), (ban.subject,))
            self._forget(ban)
            self._say("info", f"the ban of {ban.subject} has ended")
        if self._changed != self._written and asyncio.get_running_loop().time() >= self._pause_until:
            self._write()

    async def asked(self, asked: BanRequest) -> list[Ban] | list[BanResult] | str:
        """An operator's request: rows, or what is wrong with it."""
        wrong = fault_of(asked)
        if wrong:
            return wrong
        now_us = self._now_us()
        if asked.action == "list":
            return [ban for ban in self._bans if ban.holds(now_us)]
        rows = apply(self._bans, asked, now_us)
        for row in rows:
            if row.ban is not None:
                self._operated(row.ban, asked, row.text)
        problem = await self._saved()
        return problem or rows

    def _operated(self, ban: Ban, asked: BanRequest, text: str) -> None:
        """Tell the workers; what led to a ban that is lifted must not lead to the next at once."""
        self._changed += 1
        self._forget(ban)
        self._tell_bans(*(((ban,), ()) if asked.action == "add" else ((), (ban.subject,))))
        told = f"{ban.subject}: {text} by {asked.by or 'an operator'}"
        if asked.action == "add":
            end = datetime.fromtimestamp(ban.until_us / 1e6, UTC).strftime("until %Y-%m-%dT%H:%M:%SZ")
            told += f", {end if ban.until_us else 'for ever'}" + (f": {ban.reason}" if ban.reason else "")
        self._say("info", told)

    def _forget(self, ban: Ban) -> None:
        keys = tuple(troubles_of(ban.subject, ban.is_account))
        self._office.forget(keys)
        for number in self._workers():
            self._send(number, TallyForgotten(keys))

    def _add(self, ban: Ban) -> None:
        self._bans.add(ban)
        self._changed += 1
        self._tell_bans((ban,), ())

    def _tell_bans(self, added: tuple[Ban, ...], lifted: tuple[str, ...]) -> None:
        """Also to workers that are about to serve: they have heard the others by `worker_starts`."""
        for number in self._processes():
            self._send(number, BansTold(added, lifted))

    # ---- The file

    async def _saved(self) -> str:
        """Wait until what has changed by now is in the file. "" or why it is not."""
        wanted = self._changed
        while self._written < wanted:
            problem = await asyncio.shield(self._write())
            if problem:
                return problem
        return ""

    async def close(self) -> None:
        await self._saved()

    def _write(self) -> asyncio.Task[str]:
        if self._writing is None:
            self._writing = asyncio.ensure_future(self._written_down(self._changed, list(self._bans)))
        return self._writing

    async def _written_down(self, change: int, bans: list[Ban]) -> str:
        state_dir = Path(self._settings().state_dir)
        try:
            await asyncio.to_thread(banned.write, state_dir, bans, self._now_us())
        except OSError as error:
            self._pause_until = asyncio.get_running_loop().time() + RETRY_S
            text = f"the bans cannot be kept in {state_dir / banned.FILE}: {error.strerror or error}"
            self._say("error", text)
            return text
        else:
            self._written = change
            return ""
        finally:
            self._writing = None

