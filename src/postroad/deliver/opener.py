"""Opens couriers: finds a destination's hops and tries them in order (RFC 5321 §5.1).

What always holds: `opened` is called exactly once for each call, with a courier that is ready or with the Attempt that
says why there is none; never from within the call. A hop whose session ended over its first job counts as one that
could not be reached, so that the next call tries the others first.

An exception at one hop is a bug; it counts as the outcome of this hop, and the next one is tried.

How it fails: an Attempt of the reach DESTINATION. It is permanent only if every hop says that it never takes mail (521,
556: RFC 7504), if no hop can be trusted with mail that requires TLS (RFC 8689), or if the look-up found that there is
no hop. In all other cases the mail is tried again, also after a greeting of 554, because that often means only the
present moment. An exception is a bug: it is caught here, once, logged, and becomes a deferral.

Not here: MX look-ups (`route.mx`, handed in as `hops`), the number of connections (the queue), the dialog with a hop
(`session`).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Any, Final, assert_never

import msgspec

from postroad.deliver.concluding import softened
from postroad.deliver.courier_context import CourierContext, courier_context
from postroad.deliver.credentials import Credentials
from postroad.deliver.delegated import DelegatedCourier
from postroad.deliver.doing import Trying, place
from postroad.deliver.http import HttpCourier, HttpTools
from postroad.deliver.maildir import MaildirCourier
from postroad.deliver.mbox import MboxGate
from postroad.deliver.mbox_courier import MboxCourier
from postroad.deliver.memory import HopMemory
from postroad.deliver.options import DeliverOptions
from postroad.deliver.program import ProgramCourier
from postroad.deliver.quota import QuotaTable
from postroad.deliver.reports import ReportCourier, ReportReader
from postroad.deliver.session import HopTools, HopTrial, NoCourier, deferred, passed_over, visit
from postroad.deliver.signing import Signing
from postroad.deliver.smtp import SmtpCourier
from postroad.mail.attempt import Attempt, Outcome, Reach, Try
from postroad.mail.courier import Courier
from postroad.mail.job import WayOut
from postroad.mail.loop import Marks
from postroad.mail.route import Destination, Hop, HostProof, Origin, Route, TlsDemand, Transport
from postroad.mail.size_limits import SizeLimits
from postroad.mail.tls_details import details
from postroad.mail.tls_policy import HostPolicy, TlsFailure
from postroad.protocol.sending import Result
from postroad.store.kept_reports import ReportStore
from postroad.world.clock import Clock
from postroad.world.files import Posix
from postroad.world.http_link import HttpLink, MakeLink
from postroad.world.network import Network
from postroad.world.porter_link import Porter
from postroad.world.programs import Programs
from postroad.world.tls import ClientTls
from postroad.world.tls_facts import TlsFacts

_LOG: Final = logging.getLogger(__name__)
HTTP_THREADS: Final = 32  # requests by HTTP of a worker at a time
_TEXT_MAX: Final = 1000  # characters of an attempt that tells of several hops
_TRY_TEXT_MAX: Final = 500  # characters of the text of one of them


Hops = Callable[[Destination], Awaitable[Route | Attempt]]
Opened = Callable[[Courier | Attempt], None]
Lost = Callable[[Courier], None]


class Opener:
    """Call it: `opener(destination, opened, lost)`. See the module.

    `name`: ours, for EHLO and for names of files. `credentials`: by the name that a destination gives. `pool`: threads
    for files, which all couriers share. `marks`: those by which the node knows what it has delivered; None: none are
    made. `porter`: delivers as other users, None if nobody does. `sizes`: hears of the largest message that each
    destination takes. `make_link`: for requests by HTTP. `ways_out`: what is changed of header sections for a
    destination, None if nothing is. `kept_reports`: where reports of others are kept; None: none are read. `signing`:
    signs mail, once the settings want it.
    """

    def __init__(
        self,
        *,
        name: str,
        options: DeliverOptions,
        network: Network,
        tls: ClientTls,
        hops: Hops,
        credentials: Callable[[str], Credentials | None],
        programs: Programs,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        pool: Executor,
        posix: Posix | None = None,
        entropy: random.Random | None = None,
        marks: Marks | None = None,
        porter: Porter | None = None,
        sizes: SizeLimits | None = None,
        make_link: MakeLink = HttpLink,
        ways_out: Callable[[Destination], WayOut | None] = lambda destination: None,
        kept_reports: ReportStore | None = None,
        signing: Signing | None = None,
    ) -> None:
        self._signing = signing
        self._ways_out = ways_out
        self._porter = porter
        self._sizes = sizes
        self._delegated: set[DelegatedCourier] = set()  # that carry a job
        self._clock, self._pool, self._network = clock, pool, network
        self._entropy = entropy or random.SystemRandom()
        self._hops = hops
        self._credentials = credentials
        self._programs = programs
        self._loop = loop
        self._posix = posix or Posix()
        self._marks = marks
        self._gate = MboxGate()
        self._quotas = QuotaTable()
        self._busy: set[ProgramCourier] = set()  # couriers whose programs run
        self._reading: set[ReportCourier] = set()  # couriers that carry a job
        self._report_pool = ThreadPoolExecutor(1, "reports")
        self._reader: ReportReader | None = None
        if kept_reports is not None:
            self._reader = ReportReader(kept_reports, name, options.reports, loop.time)
        self._memory = HopMemory(options.hop_memory_s, options.tls_memory_s, options.bdat_memory_s)
        self._shared: CourierContext = courier_context(name, options, clock, loop, pool)
        self._http_pool = ThreadPoolExecutor(HTTP_THREADS, "http")  # starts threads when there is work
        self._make_link = make_link
        self._http = HttpTools(self._http_pool, options.http.ca_file, make_link)
        self._ways = HopTools(self._shared, network, tls, programs, self._entropy)
        self._tasks: set[asyncio.Task[None]] = set()
        self._openings: set[Trying] = set()  # under way
        self._turns: dict[Origin, int] = {}  # connections begun from each set of addresses that the settings name

    def take(self, name: str, options: DeliverOptions, tls: ClientTls, *, signs: bool = False) -> None:
        """Settings; `signs`: whether mail is signed. Couriers from here on go by them. What is being opened now may be
        of both, and couriers that are there keep the old ones: the queue lets go of both (`queue.queue.Queue.take`).
        What was learned of hosts is kept if the settings are the same."""
        before = self._shared.options, self._ways.tls.options
        self._turns.clear()
        signing = self._signing if signs else None
        self._shared = courier_context(name, options, self._clock, self._loop, self._pool, signing)
        self._http = HttpTools(self._http_pool, options.http.ca_file, self._make_link)
        if self._reader is not None:
            self._reader.take(name, options.reports)
        self._ways = HopTools(self._shared, self._network, tls, self._programs, self._entropy)
        if before != (options, tls.options):
            self._memory = HopMemory(options.hop_memory_s, options.tls_memory_s, options.bdat_memory_s)

    def __call__(self, destination: Destination, opened: Opened, lost: Lost) -> None:
        if destination.reports and self._reader is not None:
            reading = ReportCourier(self._shared, self._report_pool, self._reader, self, self._reading)
            self._loop.call_soon(opened, reading)
            return
        if destination.rules.user:
            self._loop.call_soon(
                opened, DelegatedCourier(self._shared, self._porter, self._delegated, self._quotas, self._marks)
            )
            return
        match destination.transport:
            case Transport.MAILDIR:
                self._loop.call_soon(opened, MaildirCourier(self._shared, self._posix, self._marks, self._quotas))
            case Transport.MBOX:
                writer = MboxCourier(
                    self._shared, self._posix, self._gate, self._entropy, self._marks, self._quotas
                )
                self._loop.call_soon(opened, writer)
            case Transport.HTTP:
                self._loop.call_soon(opened, HttpCourier(self._shared, self._http, self._marks))
            case Transport.PROGRAM:
                runner = ProgramCourier(self._shared, self._programs, self._busy, self._marks)
                self._loop.call_soon(opened, runner)
            case Transport.SMTP | Transport.LMTP:
                self._start(self._open(destination, opened, lost))
            case _ as unknown:
                assert_never(unknown)

    def doing(self, key: str) -> list[str]:
        """What the openings for a destination are at, the oldest first."""
        now = self._loop.time()
        there = sorted((each for each in self._openings if each.key == key), key=lambda each: each.since)
        return [each.in_words(now) for each in there]

    def cancel(self) -> None:
        """End all openings under way, for ever: their `opened` is called with a deferral, and no report is read any
        more."""
        if self._reader is not None:
            self._reader.stop()
        for task in self._tasks:
            self._loop.call_soon(task.cancel)  # not before it has begun: it is to call `opened`

    async def end_programs(self) -> None:
        """End the programs that run, and their whole groups; the outcome of each has been told by then."""
        if self._reader is not None:
            self._reader.stop()
        ends = [courier.end() for courier in (*self._busy, *self._delegated, *self._reading)]
        await asyncio.gather(*ends)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)  # the loop alone would not keep it
        task.add_done_callback(self._tasks.discard)

    async def _open(self, destination: Destination, opened: Opened, lost: Lost) -> None:
        result: Courier | Attempt
        trying = Trying(destination.key, self._loop.time())
        self._openings.add(trying)
        try:
            result = await self._find(destination, lost, trying)
        except asyncio.CancelledError:
            result = self._attempt(destination, None, deferred("4.3.2", "we broke off the opening of a connection"))
        except Exception as error:
            _LOG.exception("opening a connection to %s", destination.key)
            result = self._attempt(destination, None, deferred("4.3.0", f"internal error: {type(error).__name__}"))
        self._openings.discard(trying)
        opened(result)

    async def _find(self, destination: Destination, lost: Lost, trying: Trying) -> SmtpCourier | Attempt:
        """The first hop that takes us, else the outcome that leaves most hope."""
        found = await self._hops(destination)
        if isinstance(found, Attempt):
            return found
        if not found.hops:
            return self._attempt(destination, None, deferred("4.4.4", "the look-up gave no host to try"))
        hops = found.hops
        if destination.origin.is_set:
            hops = tuple(hop for hop in hops if destination.origin.of(hop.address))
            if not hops:
                return self._attempt(destination, None, deferred("4.3.5", _no_family(found.hops)))
        hops_max = max(1, self._shared.options.hops_max)
        attempts: list[Attempt] = []
        tries: list[Try] = []
        if any(hop.policy is not None and hop.policy.passed_over for hop in hops):
            hops = self._pass_over(destination, hops, attempts, tries)
        ordered = self._memory.ordered(hops, self._loop.time(), hops_max)
        for tried, hop in enumerate(ordered, 1):
            trying.goes_to(hop, self._loop.time())
            started_us = self._shared.clock.now_us()
            name = destination.credentials if hop.fallback is None else hop.fallback.credentials
            credentials = self._credentials(name) if name else None
            if name and credentials is None:
                text = f"there are no credentials named {name!r}"
                attempts.append(self._attempt(destination, None, deferred("4.3.5", text)))
                break
            result = await self._try_safely(destination, hop, credentials, lost, trying)
            if isinstance(result, SmtpCourier):
                self._memory.reached(hop)
                if self._sizes is not None:
                    self._sizes.note(destination.key, result.machine.capabilities.size_max)
                result.way_out = self._ways_out(destination)
                others = any(self._memory.is_fresh(other, self._loop.time()) for other in ordered[tried:])
                result.set_out(
                    elsewhere=others, failed=partial(self._failed, hop, result), broken=partial(self._broken, hop),
                    tries=tuple(tries),
                )
                return result
            named = None if result.ours else hop  # else it would count as a refusal of that host
            attempts.append(self._attempt(destination, named, softened(result.result), result.tls, result.auth))
            if result.policy is not None:
                attempts[-1] = msgspec.structs.replace(attempts[-1], policy=result.policy)
            if result.ours:
                continue
            proof = HopTrial(destination, hop, credentials, plain=False).proof
            tries.append(_tried(attempts[-1], proof, started_us))
            if result.result.reach is Reach.DESTINATION:  # the account is refused: no other host is asked
                break
            if result.policy is None:  # else another domain's mail may go there all the same
                self._memory.failed(hop, self._loop.time())
        return _verdict(attempts, tuple(tries))

    def _pass_over(
        self, destination: Destination, hops: Sequence[Hop], attempts: list[Attempt], tries: list[Try]
    ) -> tuple[Hop, ...]:
        """The hops that can satisfy their TLS policy. Of each other host there is an attempt, as if it had been tried;
        it takes no place of a host that can be tried."""
        left: list[Hop] = []
        told: set[str] = set()
        now_us = self._shared.clock.now_us()
        for hop in hops:
            if hop.policy is None or not hop.policy.passed_over:
                left.append(hop)
            elif hop.name not in told:
                told.add(hop.name)
                found = passed_over(hop.policy, now_us)
                attempt = self._attempt(destination, hop, found.result)
                attempts.append(msgspec.structs.replace(attempt, policy=found.policy))
                tries.append(_tried(attempts[-1], HostProof.NOTHING, now_us))
        return tuple(left)

    def _turn(self, origin: Origin) -> int:
        """Which of several addresses of ours is next."""
        turn = self._turns.get(origin, 0)
        self._turns[origin] = turn + 1
        return turn

    def _failed(self, hop: Hop, courier: SmtpCourier) -> None:
        now = self._loop.time()
        self._memory.failed(hop, now)
        if courier.machine.tls_refused:  # and then the session ended: the next one goes without STARTTLS
            self._memory.tls_failed(hop, now)

    def _broken(self, hop: Hop, keyword: str) -> None:
        self._memory.is_broken(hop, keyword, self._loop.time())

    async def _try_safely(
        self, destination: Destination, hop: Hop, credentials: Credentials | None, lost: Lost, trying: Trying
    ) -> SmtpCourier | NoCourier:
        try:
            return await self._try(destination, hop, credentials, lost, trying)
        except Exception as error:
            _LOG.exception("opening a connection to %s", place(hop))
            return NoCourier(deferred("4.3.0", f"{place(hop)}: internal error: {type(error).__name__}"))

    async def _try(
        self, destination: Destination, hop: Hop, credentials: Credentials | None, lost: Lost, trying: Trying
    ) -> SmtpCourier | NoCourier:
        """One hop; once more in plaintext if TLS was not demanded and did not work (RFC 7435 §3)."""
        now = self._loop.time()
        ignored = frozenset(destination.ignored_extensions)
        if hop.fallback is not None:
            ignored = _UNTOLD.union(hop.fallback.ignored_extensions)
        if broken := self._memory.broken(hop, now):
            ignored = ignored.union(broken)
            if "CHUNKING" in ignored:
                ignored |= {"BINARYMIME"}  # RFC 3030 §3: it needs BDAT
        where = HopTrial(destination, hop, credentials, plain=False, ignored=ignored, trying=trying)
        if destination.origin.is_set:
            where = msgspec.structs.replace(where, turn=self._turn(destination.origin))
        if where.tls is TlsDemand.NONE or (where.tls is TlsDemand.MAY and self._memory.speaks_plain(hop, now)):
            where = msgspec.structs.replace(where, plain=True)
        result = await visit(self._ways, where, lost)
        if not isinstance(result, NoCourier):
            return result
        policy = hop.policy
        if policy is not None and policy.testing and result.policy is not None:
            # RFC 8461 §5: the domain only wants to be told
            hop = msgspec.structs.replace(
                _with_failure(hop, policy, result), tls=TlsDemand.MAY, proof=HostProof.NOTHING
            )
            where = msgspec.structs.replace(where, hop=hop)
            result = await visit(self._ways, where, lost)
            if not isinstance(result, NoCourier):
                return result
        if not result.plain_next:
            return result
        where = msgspec.structs.replace(where, plain=True)
        if policy is not None and (policy.testing or policy.failure is TlsFailure.NO_FAILURE):
            where = msgspec.structs.replace(where, hop=_with_failure(hop, policy, result))
        again = await visit(self._ways, where, lost)
        if isinstance(again, NoCourier):  # then it was not for TLS, and TLS is tried again
            text = f"{again.result.text}; before that, with TLS: {result.result.text}"
            return msgspec.structs.replace(again, result=msgspec.structs.replace(again.result, text=text))
        self._memory.tls_failed(hop, self._loop.time())
        return again

    def _attempt(
        self,
        destination: Destination,
        hop: Hop | None,
        result: Result,
        tls: TlsFacts | None = None,
        auth: str = "",
    ) -> Attempt:
        return Attempt(
            result.outcome, Reach.DESTINATION, result.status, result.text, result.reply,
            remote_name=hop.name if hop is not None else "",
            remote_address=hop.address if hop is not None else "",
            remote_port=hop.port if hop is not None else 0,
            tls=tls.text if tls is not None else "",
            started_us=self._shared.clock.now_us(),
            transport=destination.transport.value,
            tls_details=details(tls) if tls is not None else None,
            auth=auth,
        )


def _with_failure(hop: Hop, policy: HostPolicy, found: NoCourier) -> Hop:
    """The hop, for a visit after which its policy is told of what the one before has found. A session that TLS has
    broken has no better word."""
    failure = TlsFailure.VALIDATION_FAILURE if found.failure is TlsFailure.NO_FAILURE else found.failure
    return msgspec.structs.replace(hop, policy=msgspec.structs.replace(policy, failure=failure, text=found.result.text))


def _no_family(hops: Sequence[Hop]) -> str:
    """Why no host can be reached from the addresses that are set."""
    theirs, ours = ("IPv6", "source_ipv6") if ":" in hops[0].address else ("IPv4", "source_ipv4")
    return f"{hops[0].name} has only {theirs} addresses, but the [[next_hop]] has no {ours}"


def _tried(attempt: Attempt, proof: HostProof, started_us: int) -> Try:
    """What is kept of one host that did not take the connection."""
    return Try(
        attempt.remote_name, attempt.remote_address, attempt.remote_port, attempt.outcome, attempt.status,
        attempt.text[:_TRY_TEXT_MAX], attempt.reply, attempt.tls, proof if attempt.tls else HostProof.NOTHING,
        started_us, max(0, attempt.started_us - started_us), attempt.policy,
    )


def _verdict(attempts: Sequence[Attempt], tries: tuple[Try, ...]) -> Attempt:
    """One outcome for all hops: the first deferral, else the first failure; its text tells of them all."""
    chosen = next((attempt for attempt in attempts if attempt.outcome is Outcome.DEFERRED), attempts[0])
    if len(attempts) == 1:
        return chosen
    tried = [attempt for attempt in attempts if attempt.remote_name]
    told = list(dict.fromkeys(attempt.text for attempt in attempts if not attempt.remote_name))  # our own faults
    names = {attempt.remote_name for attempt in tried}
    said = "; ".join(_told(tried) + told)
    if len(names) > 1:
        said = f"{len(names)} hosts tried: {said}"
    elif len(tried) > 1:
        said = f"{len(tried)} addresses of {tried[0].remote_name} tried: {said}"
    text = said[:_TEXT_MAX]
    return msgspec.structs.replace(chosen, text=text, tries=tries)


def _told(attempts: Sequence[Attempt]) -> list[str]:
    """What was found of each host; of several of which the same is to be said, together."""
    same: dict[str, list[str]] = {}
    for attempt in attempts:
        where = place(Hop(attempt.remote_name, attempt.remote_address, attempt.remote_port))
        said = f"{where}: {attempt.reply}" if attempt.reply is not None else attempt.text
        form = said if where in said else f"{where}: {said}"
        same.setdefault(form.replace(where, _PLACE), []).append(where)
    return [form.replace(_PLACE, " and ".join(places)) for form, places in same.items()]


_UNTOLD: Final = frozenset({"XFORWARD", "XCLIENT"})  # what a fallback is told nothing by
_PLACE: Final = "\0"
