"""MTA-STS in a worker: answers which policy a domain has, and fetches policies as the supervisor's office says.

RFC 8461 §5.1. The worker asks the DNS for the record at each question, from the resolver's memory as long as its time
to live lasts; the office (`node.offices.sts`) knows the policies of the node. What always holds: a policy that the
office has told is believed as long as it said, unless the record has another id by then; as many answers as
`ANSWERS_MAX` are remembered; equal questions under way are one.

How it fails: if the record cannot be looked up, or is gone, the policy that is known holds. If the office does not
answer within `ANSWER_S` beyond the time of a fetch, the last answer counts as long as its policy lasts.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Final

import msgspec

from postroad.mail.tls_policy import NO_STS, StsAnswer, StsMode, TlsFailure
from postroad.node.frames import AskSts, FetchSts, Frame, StsChanged, StsFetchDone, StsTold
from postroad.trust.sts import record_name
from postroad.trust.sts_fetch import StsFetched, StsOptions, StsRecordFound, ask_record, fetch
from postroad.world.dns import Resolver
from postroad.world.http import Fetch, HttpRequest, HttpResponse
from postroad.world.problem import Problem

ANSWERS_MAX: Final = 10_000
FETCH_THREADS: Final = 16
ANSWER_S: Final = 60
_LOG: Final = logging.getLogger(__name__)


class WorkerSts:
    """`postroad.mail.tls_policy.StsPolicies` for one worker. `send`: a frame to the supervisor. `make_fetch`: HTTPS by
    these threads, with these roots; OSError if they cannot be read."""

    def __init__(
        self, send: Callable[[Frame], None], now_us: Callable[[], int], loop: asyncio.AbstractEventLoop,
        make_fetch: Callable[[Executor, str], Fetch],
    ) -> None:
        self._send, self._now_us, self._loop, self._make_fetch = send, now_us, loop, make_fetch
        self._options = StsOptions()
        self._resolver: Resolver
        self._https: Fetch | None = None  # made at first use: it reads all roots
        self._pool = ThreadPoolExecutor(FETCH_THREADS, "policies")  # starts threads when there is work
        self._told: OrderedDict[str, StsTold] = OrderedDict()  # by domain
        self._waiting: dict[tuple[str, str], list[asyncio.Future[StsTold]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, options: StsOptions, resolver: Resolver) -> None:
        """Settings. What is known stays."""
        self._options, self._resolver, self._https = options, resolver, None

    async def __call__(self, domain: str, /) -> StsAnswer:
        found = await ask_record(domain, self._resolver)
        told = self._told.get(domain)
        if told is None or not self._holds(told, found.id):
            told = await self._asked(domain, found.id) or told
        now_us = self._now_us()
        if told is None:
            return NO_STS
        answer = told.answer
        if told.expires_us <= now_us:
            answer = msgspec.structs.replace(answer, policy=None, source="")
        return self._as_set(_with_lost_record(answer, domain, found))

    def _as_set(self, answer: StsAnswer) -> StsAnswer:
        policy = answer.policy
        if not self._options.testing or policy is None or policy.mode is not StsMode.ENFORCE:
            return answer
        return msgspec.structs.replace(answer, policy=msgspec.structs.replace(policy, mode=StsMode.TESTING))

    def _holds(self, told: StsTold, id: str) -> bool:
        return self._now_us() < told.until_us and id in ("", told.id)

    async def _asked(self, domain: str, id: str) -> StsTold | None:
        """What the office says; None if it says nothing."""
        future: asyncio.Future[StsTold] = self._loop.create_future()
        waiting = self._waiting.setdefault((domain, id), [])
        waiting.append(future)
        if len(waiting) == 1:
            self._send(AskSts(domain, id))
        try:
            async with asyncio.timeout(self._options.time_s + ANSWER_S):
                return await future
        except TimeoutError:
            _LOG.error("MTA-STS: the supervisor says nothing of the policy of %s", domain)
            self._waiting.pop((domain, id), None)
            return None

    # ---- Frames of the supervisor

    def hear(self, frame: StsTold | StsChanged | FetchSts) -> None:
        match frame:
            case StsTold():
                self._hear_told(frame)
            case StsChanged(domain):  # what was told is not so any more
                self._told.pop(domain, None)
            case FetchSts():
                task = self._loop.create_task(self._fetch(frame))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _hear_told(self, told: StsTold) -> None:
        self._told.pop(told.domain, None)
        self._told[told.domain] = told
        while len(self._told) > ANSWERS_MAX:
            self._told.popitem(last=False)
        for future in self._waiting.pop((told.domain, told.id), ()):
            if not future.done():
                future.set_result(told)

    async def _fetch(self, wanted: FetchSts) -> None:
        domain, id = wanted.domain, wanted.id
        try:
            if not id:  # it is to be renewed, whatever its record says (RFC 8461 §10.2)
                id = (await ask_record(domain, self._resolver)).id
            found = await fetch(domain, id, self._resolver, self._get, self._options)
        except Exception as error:
            _LOG.exception("fetching the MTA-STS policy of %s", domain)
            text = f"internal error: {type(error).__name__}"
            found = StsFetched(None, TlsFailure.STS_POLICY_FETCH_ERROR, text)
        self._send(StsFetchDone(wanted.question, found))

    async def _get(self, request: HttpRequest) -> HttpResponse | Problem:
        if self._https is None:
            path = self._options.ca_file
            try:
                self._https = self._make_fetch(self._pool, path)
            except OSError as error:
                return Problem(path, f"the root certificates cannot be read: {error.strerror or error}")
        return await self._https(request)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)


def _with_lost_record(answer: StsAnswer, domain: str, found: StsRecordFound) -> StsAnswer:
    """RFC 8461 §6: that the record of a policy in force is gone is worth a report."""
    policy = answer.policy
    if found.id or found.unknown or policy is None or policy.mode is StsMode.NONE or answer.failure.value:
        return answer
    text = found.text or f"there is no valid record {record_name(domain)} any more; the policy is still in force"
    return msgspec.structs.replace(answer, failure=TlsFailure.STS_POLICY_FETCH_ERROR, text=text)
