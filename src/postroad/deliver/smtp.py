"""The courier over SMTP and LMTP: one connection, kept, carrying one job after the other (RFC 5321, RFC 2033).

A thin front of `protocol.client.ClientMachine`: octets, time limits, content. It writes few pieces: the envelope in
one, content of up to `whole_max` with its end in one, larger content in pieces as the remote takes them.

What always holds:
- `done` of a job is called exactly once, never from within `carry`, whatever happens to the connection.
- Each wait has a limit of its own (RFC 5321 §4.5.3.2). It begins when a command goes out, and again with each whole
  reply, but not with a part of one. There is one timer for each connection; it is set again only when it fires, so that
  a command costs no timer. `idle_s` counts only while the queue has a connection and no work for it.
- If a connection ends before the remote has answered for the job, the attempts have the reach SESSION, unless the end
  of data had been sent (`protocol.client`). The queue may then try at once on another connection.
- A recipient for whom there was no room in a transaction (RFC 5321 §4.5.3.1.10, RFC 9422) follows in the next one. If
  the session has no room (MAILMAX, RCPTDOMAINMAX), another session carries the recipient.
- `lost` is called at most once, when an idle courier has become of no use.

Not here: which host (`opener`), what the dialog means (`protocol.client`), retries (the queue).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, cast

import msgspec

from postroad.deliver import announcing
from postroad.deliver.announcing import STRAY_LINE_END, CarriedJob, Done
from postroad.deliver.concluding import (
    CLOSED,
    NOT_TRIED,
    SessionUsed,
    answered_in_part,
    attempts_of,
    over_time,
    silent,
    softened,
    unreadable,
)
from postroad.deliver.courier_context import CourierContext
from postroad.deliver.doing import carrying
from postroad.deliver.introducing import Introductions
from postroad.deliver.signing import AwaitedSignature, SignedForm
from postroad.deliver.stream import ContentStream, Look, Looked, Piece, look_through
from postroad.deliver.way_out import OtherHead, other_head, read_other_head
from postroad.mail.attempt import Outcome, Reach, Try
from postroad.mail.envelope import Body
from postroad.mail.job import Job, WayOut
from postroad.mail.message import size
from postroad.mail.route import Hop, Transport
from postroad.mail.tls_details import details
from postroad.mail.tls_policy import TlsOutcome
from postroad.protocol import sending
from postroad.protocol.client import ClientMachine
from postroad.protocol.client_events import ClientEvent, ConnectionEnded, Finished, SendContent, SessionReady, Step
from postroad.protocol.sending import ContentFacts, Result, Security
from postroad.protocol.seven_bit import EightBit
from postroad.world.network import why
from postroad.world.tls_facts import TlsFacts, facts

_LOG: Final = logging.getLogger(__name__)
# Members of an Enum by plain names: on Python 3.11 each access through its class costs a look-up more.
_CLOSED: Final = Step.CLOSED
_BINARY_MIME: Final = Body.BINARY_MIME
_FAILED: Final = Outcome.FAILED
_TIMER_SLACK_S: Final = 0.005  # a loop's timers are as coarse as a millisecond


class SmtpCourier(asyncio.Protocol):
    """See the module. Made by the opener, who sets the session up and then lets it go with `release`. `ignored`:
    keywords of the remote that count as not offered. `hello`: our name for EHLO, "": the node's."""

    def __init__(
        self, shared: CourierContext, kind: Transport, hop: Hop, ignored: frozenset[str] = frozenset(), hello: str = ""
    ) -> None:
        self.hop = hop
        self._hello = hello or shared.name
        self.machine = ClientMachine(
            self._hello, lmtp=kind is Transport.LMTP, limits=shared.reply_limits, ignored=ignored
        )
        self.tls: TlsFacts | None = None  # what the handshake showed
        self.ended: ConnectionEnded | None = None  # how the session has ended
        self._shared = shared
        self._loop = shared.loop
        self._clock = shared.clock
        self._transport: asyncio.Transport | None = None
        self._session = SessionUsed(hop, kind.value)
        self._lost: Callable[[SmtpCourier], None] | None = None
        self._waiter: asyncio.Future[ClientEvent] | None = None
        self._opening: deque[ClientEvent] = deque()  # events of the set-up that nobody has waited for yet
        self._alive = False
        self._closing = False
        self._paused = False
        self._since = 0.0  # when the wait for what comes next has begun
        self._timer: asyncio.TimerHandle | None = None
        self._transactions = 0
        self._transactions_max = shared.options.messages_max
        self._expires = 0.0
        self._domains: set[str] = set()  # of recipients said in this session, if the remote limits them
        self._full = False  # there is no room for a recipient of another domain, and one may come
        self._elsewhere = False
        self._failed: Callable[[], None] | None = None
        self._broken: Callable[[str], None] | None = None
        self._work: CarriedJob | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.way_out: WayOut | None = None  # what is changed of header sections for this destination
        self._introductions: Introductions | None = None
        self._fetching = False

    # -- the set-up, for the opener ----------------------------------------------------------------------------------

    async def event(self) -> ClientEvent:
        """The next event of the set-up; ConnectionEnded is the last."""
        if not self._opening:
            self._waiter = self._loop.create_future()
            try:
                return await self._waiter
            finally:
                self._waiter = None
        return self._opening.popleft()

    async def ask_for_tls(self) -> ClientEvent:
        """STARTTLS: StartHandshake, TlsRefused or ConnectionEnded. As with all of these: the session may have ended
        meanwhile."""
        if self.machine.step is Step.IDLE:
            self.machine.start_tls()
            self._ask()
        return await self.event()

    async def tls_started(self, transport: asyncio.Transport, *, proved: bool = False) -> ClientEvent:
        """TLS is on; EHLO again: SessionReady or ConnectionEnded. `proved`: the certificate is what a TLS policy wants,
        which OpenSSL does not know."""
        self._transport = transport
        self.tls = facts(transport)
        if proved and self.tls is not None:
            self.tls = msgspec.structs.replace(self.tls, verified=True)
        if self.machine.step is Step.HANDSHAKE:
            self.machine.tls_started()
            self._ask()
        return await self.event()

    async def authenticate(self, mechanism: str, initial: bytes | None) -> ClientEvent:
        """AUTH: AuthChallenged, AuthSucceeded, AuthRefused or ConnectionEnded."""
        if self.machine.step is Step.IDLE:
            self.machine.authenticate(mechanism, initial)
            self._ask()
        return await self.event()

    async def respond(self, response: bytes | None) -> ClientEvent:
        """A response to a challenge, None to cancel: as `authenticate`."""
        if self.machine.step is Step.RESPONSE:
            self.machine.respond(response)
            self._ask()
        return await self.event()

    @property
    def transport(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport

    @property
    def alive(self) -> bool:
        return self._alive

    def _wait_for_work(self) -> None:
        self._wait()
        if self._shared.options.idle_s < self._shared.look_s:
            self._arm(self._since)

    def release(self, security: Security, connect_us: int, lost: Callable[[SmtpCourier], None]) -> None:
        """The session is set up: from here on the courier belongs to the queue."""
        changes = {"security": security, "connect_us": connect_us}
        if self.tls is not None:
            changes |= {"tls": self.tls.text, "tls_details": details(self.tls)}
        self._session = msgspec.structs.replace(self._session, **changes)
        self._lost = lost
        self._expires = self._loop.time() + self._shared.options.age_s
        if self.machine.capabilities.mail_max:  # RFC 9422 §4.1: MAILMAX
            self._transactions_max = min(self._transactions_max, self.machine.capabilities.mail_max)
        self._wait_for_work()

    def judged(self, policy: TlsOutcome) -> None:
        """What the TLS policy of the remote came to; the attempts of all jobs tell of it."""
        self._session = msgspec.structs.replace(self._session, policy=policy)

    def set_out(
        self, *, elsewhere: bool, failed: Callable[[], None], broken: Callable[[str], None] | None = None,
        tries: tuple[Try, ...] = (),
    ) -> None:
        """`elsewhere`: the destination has other hosts that did not fail lately. `failed` is told when the session ends
        over the first job: such a host counts as one that could not be reached (RFC 5321 §5.1). `broken` is told
        the keyword of an extension that the remote offers and that does not work: CHUNKING if it refuses BDAT as a
        command, DSN if it refuses its parameters, PIPELINING if it leaves a command of a group without an answer.
        `tries`: the hosts that were tried before; the attempts of the first job tell of them."""
        if tries:
            self._session = msgspec.structs.replace(self._session, tries=tries)
        self._elsewhere, self._failed, self._broken = elsewhere, failed, broken

    # -- the face towards the queue ----------------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Whether it may carry another job now."""
        return (
            self._alive
            and self._work is None
            and not self._closing
            and self._transactions < self._transactions_max
            and not self._full
            and self._loop.time() < self._expires
        )

    @property
    def elsewhere(self) -> bool:
        """Whether another host of the destination, or another way of talking to this one, is left to try, should this
        one end the session."""
        return self._elsewhere

    @property
    def doing(self) -> str:
        """What a job that is carried is at, for operators."""
        started_us = self._work.started_us if self._work is not None else self._clock.now_us()
        return carrying(self.hop, self.machine.step, (self._clock.now_us() - started_us) / 1_000_000)

    def carry(self, job: Job, done: Done) -> None:
        """Carry a job. One at a time."""
        assert self._work is None, "one job at a time"
        ends = self._loop.time() + self._shared.options.transaction_s
        work = self._work = CarriedJob(job, done, self._clock.now_us(), ends, [None] * len(job.recipients))
        if not self._alive or self._closing:
            self._conclude_soon(CLOSED)
        elif self.way_out is not None:
            self._change_head(work, self.way_out)
        elif job.destination.xclient:
            self._introduce(work)
        elif sending.must_inspect(job.envelope, self.machine.capabilities):
            self._look(work)
        else:
            self._announce(work, None)

    def close(self) -> None:
        """QUIT, at leisure; a job under way is ended first."""
        if self._closing:
            return
        self._closing = True
        if self._work is None:
            self._leave()

    def abort(self) -> None:
        """Close the connection at once."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    def _leave(self) -> None:
        if self._alive and self.machine.step is Step.IDLE:
            self.machine.quit()
            self._ask()
            self._arm(self._since)  # the last word has a shorter limit than all else
        else:
            self.abort()

    # -- a job: other header fields -----------------------------------------------------------------------------------

    def _change_head(self, work: CarriedJob, way_out: WayOut) -> None:
        """The next hop gets another header section."""
        job = work.job
        found: OtherHead | str | Awaitable[OtherHead | str]
        if isinstance(job.content, bytes):
            found = other_head(job, way_out)
        else:
            found = read_other_head(job, way_out, self._shared.pool, self._loop)
        if isinstance(found, Awaitable):
            self._wait()
            task = self._loop.create_task(self._head_awaited(work, found))
            self._tasks.add(task)  # the loop alone would not keep it
            task.add_done_callback(self._tasks.discard)
        else:
            self._head_changed(work, found)

    async def _head_awaited(self, work: CarriedJob, pending: Awaitable[OtherHead | str]) -> None:
        try:
            found = await pending
        except Exception as error:  # a bug; the mail waits
            _LOG.exception("changing the header section for a next hop")
            found = f"internal error: {type(error).__name__}"
        if self._work is work:  # else the connection has gone meanwhile
            self._head_changed(work, found)

    def _head_changed(self, work: CarriedJob, found: OtherHead | str) -> None:
        if isinstance(found, str):
            self._conclude_soon(Result(Outcome.DEFERRED, Reach.MESSAGE, "4.3.0", found))
            return
        if not self._alive:
            self._conclude_soon(CLOSED)
            return
        given, done = work.job, work.done
        work.job, work.changed = found.job, found.said
        work.done = lambda job, attempts: done(given, attempts)
        if given.destination.xclient:
            self._introduce(work)
        else:
            self._prepare(work)

    # -- a job: XCLIENT ----------------------------------------------------------------------------------------------

    def _introduce(self, work: CarriedJob) -> None:
        """Name the client that the message came from, unless the server knows it already."""
        if self._introductions is None:
            self._introductions = Introductions(self._hello)
        said = self._introductions.next(work.job.envelope, self.machine.capabilities, self._transport)
        if said is None:
            self._prepare(work)
            return
        self.machine.speak_for(*said)
        self._ask()
        if self.machine.step is _CLOSED:  # octets had come that nobody asked for
            self._loop.call_soon(self._process)

    def _introduced(self, work: CarriedJob, event: ClientEvent) -> None:
        """The server has answered."""
        introductions = self._introductions
        assert introductions is not None
        if isinstance(event, SessionReady):
            introductions.taken()
            if not introductions.again(self.machine.capabilities):
                self._transactions_max = self._transactions + 1
        elif not introductions.refused():  # the message would go as that of another client
            self._end_session(Result(Outcome.DEFERRED, Reach.SESSION, "4.5.1", "the remote refused XCLIENT"))
            return
        self._prepare(work)

    def _prepare(self, work: CarriedJob) -> None:
        if sending.must_inspect(work.job.envelope, self.machine.capabilities):
            self._look(work)
        else:
            self._announce(work, None)

    # -- a job: MAIL, RCPT, DATA ---------------------------------------------------------------------------------------

    def _look(self, work: CarriedJob) -> None:
        """The remote lacks something: what the content holds decides."""
        job, options = work.job, self._shared.options
        content = job.content
        target = sending.target(job.envelope, self.machine.capabilities)
        binary = job.envelope.body is _BINARY_MIME
        if isinstance(content, bytes) and not binary and content.isascii():
            self._announce(work, Looked(ContentFacts(ascii=True, utf8_header=False), len(content)))
            return
        if options.eight_bit is not EightBit.CONVERT:
            target = None
        what = Look(target, binary, options.whole_max)
        look_through(job.envelope, content, what, self._shared.pool, self._loop, self._looked_through)
        self._wait()

    def _looked_through(self, found: Looked | str) -> None:
        work = self._work
        if work is None:
            return  # the connection has gone meanwhile
        if isinstance(found, str):
            self._conclude_soon(unreadable(found))
        elif not self._alive:
            self._conclude_soon(CLOSED)
        else:
            self._announce(work, found)

    def _announce(self, work: CarriedJob, looked: Looked | None) -> None:
        """Make the commands of the job, and say the first of them."""
        offered, session = self.machine.capabilities, self._session
        shared = self._shared
        refused = announcing.announce(work, looked, offered, session.security, shared.options, shared.signing)
        if refused is not None:
            self._not_announced(work, looked, refused)
        elif work.rest:
            self._begin(work)
        else:
            self._loop.call_soon(self._conclude)

    def _not_announced(self, work: CarriedJob, looked: Looked | None, why: Result | AwaitedSignature) -> None:
        """The remote cannot have the message, or its signature is still being made."""
        if isinstance(why, AwaitedSignature):
            why.then(partial(self._signed, work, looked))
            self._wait()
        else:
            self._conclude_soon(why)

    def _signed(self, work: CarriedJob, looked: Looked | None, made: SignedForm | Result) -> None:
        """The signature is there."""
        if self._work is not work:
            return  # the connection has gone meanwhile
        if isinstance(made, Result):
            self._conclude_soon(made)
        elif not self._alive:
            self._conclude_soon(CLOSED)
        else:
            work.form = made
            self._announce(work, looked)

    def _begin(self, work: CarriedJob) -> None:
        """One transaction with as many of the rest as it may have."""
        offered = self.machine.capabilities
        if offered.rcpt_max or offered.rcpt_domain_max:
            self._full = announcing.choose(work, offered, self._domains)
            if not work.round:
                self._loop.call_soon(self._conclude)
                return
        else:
            work.round, work.rest = work.rest, []
        self._transactions += 1
        commands = [command for _, command in work.round]
        if work.job.asks_only:
            self.machine.ask(work.opening.mail, commands)
        else:
            self.machine.begin(work.opening.mail, commands, bdat=work.opening.bdat, before=work.facts)
        self._flush()
        self._wait()
        if self.machine.step is _CLOSED:  # octets had come that nobody asked for
            self._loop.call_soon(self._process)

    def _finished(self, event: Finished) -> None:
        """A transaction is over."""
        work = self._work
        assert work is not None
        failed = False
        for (position, _), result in zip(work.round, event.results, strict=True):
            work.results[position] = result
            failed = failed or result.outcome is _FAILED
        if event.excess:
            work.rest = [work.round[at] for at in sorted(event.excess)] + work.rest
        if failed and self.machine.capabilities.dsn:
            self._go_without_dsn(work)
        if work.rest and self._alive and self._transactions < self._transactions_max:
            self._begin(work)
        else:
            self._conclude()

    def _go_without_dsn(self, work: CarriedJob) -> None:
        """If the remote offers DSN and refuses its parameters, it counts as a host without DSN."""
        if not announcing.go_without_dsn(work):
            return
        capabilities = self.machine.capabilities
        keywords = {keyword: value for keyword, value in capabilities.keywords.items() if keyword != "DSN"}
        self.machine.capabilities = msgspec.structs.replace(capabilities, dsn=False, keywords=keywords)
        if self._broken is not None:
            self._broken("DSN")

    def _tell_no_bdat(self) -> None:
        """The host is remembered; the way by DATA is left to try, on another connection."""
        self._elsewhere = True
        if self._broken is not None:
            self._broken("CHUNKING")

    def _session_ended(self, work: CarriedJob, event: ConnectionEnded) -> None:
        """The session is over while a job was carried: all that is undecided shares its fate."""
        if event.bdat_refused:
            self._tell_no_bdat()
        if self._failed is not None and self._broke_after_starttls(event):
            self._elsewhere = True
        if self._failed is not None and event.result.reach is not Reach.MESSAGE and not event.bdat_refused:
            self._failed()
        for (position, _), result in zip(work.round, event.results, strict=False):
            work.results[position] = result
        result = event.result
        self._conclude(softened(result) if result.reach is Reach.HOP else result)

    def _conclude_soon(self, result: Result) -> None:
        """For all recipients, but not from within `carry`."""
        self._loop.call_soon(self._conclude, result)

    def _conclude(self, rest: Result = NOT_TRIED) -> None:
        """The job is over; `rest` is for recipients without a result of their own."""
        work = self._work
        if work is None:
            return
        session = self._session
        attempts = attempts_of(work, rest, self.machine.capabilities, session, self._clock.now_us())
        if session.connect_us or session.tries:  # they belong to the first job
            self._session = msgspec.structs.replace(session, connect_us=0, tries=())
        self._work = self._failed = None
        work.done(work.job, attempts)
        if self._work is None and self._alive:
            if self._closing:
                self._leave()
            else:
                self._wait_for_work()

    # -- content -------------------------------------------------------------------------------------------------------

    def _send_content(self, bdat: bool) -> None:
        work, transport = self._work, self._transport
        assert work is not None and transport is not None
        if work.ready is not None:
            transport.writelines(work.ready)
            self.machine.content_sent()
            return
        job, prefix = work.job, work.opening.prefix
        if bdat:
            # RFC 3030 §2: one chunk of the whole size; its octets may follow in any pieces
            transport.write(b"BDAT %d LAST\r\n%b" % (len(prefix) + size(job.envelope, job.content), prefix))
        elif prefix:
            transport.write(prefix)  # whole lines, none of which begins with a dot
        work.stream = ContentStream(
            job.envelope, job.content, stuffed=not bdat, piece_size=self._shared.options.piece_size,
            pool=self._shared.pool, loop=self._loop, plan=work.plan, line_max=work.line_max,
        )
        self._fetch()

    def _fetch(self) -> None:
        work = self._work
        stream = work.stream if work is not None else None
        if stream is not None and not self._fetching and not self._paused:
            self._fetching = True
            stream.fetch(lambda piece: self._fetched(stream, piece))

    def _fetched(self, stream: ContentStream, piece: Piece) -> None:
        self._fetching = False
        work = self._work
        if work is None or stream is not work.stream or not self._alive or self.machine.step is not Step.CONTENT:
            self._fetch()  # the piece is of a job that is over
            return
        if piece.error or piece.broken:
            # The data is not ended, so that the remote cannot take half a message for a whole one.
            self._end_session(unreadable(piece.error) if piece.error else STRAY_LINE_END)
            return
        if piece.octets:
            self.transport.write(piece.octets)
        if piece.last:
            work.stream = None
            self.machine.content_sent()
        self._wait()
        self._fetch()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._wait()  # a block of data went out (RFC 5321 §4.5.3.2.5)
        self._fetch()

    # -- the connection ------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop has transports of its own, which are no subclass
        self._transport = cast(asyncio.Transport, transport)
        self._alive = True
        self._wait()

    def data_received(self, data: bytes) -> None:
        self.machine.feed(data)
        self._process()

    def _process(self) -> None:
        """Take all that the machine has found; the end of a job is told last, when all else is in order."""
        machine = self.machine
        answers = machine.answers
        finished: Finished | None = None
        ended: ConnectionEnded | None = None
        introduced: ClientEvent | None = None
        while (event := machine.next_event()) is not None:
            if isinstance(event, Finished):
                finished = event
            elif isinstance(event, SendContent):
                self._send_content(event.bdat)
            elif isinstance(event, ConnectionEnded):
                ended = event
            elif self._work is not None:
                introduced = event
            else:
                self._tell(event)
        output = machine.take_output()
        if output:
            self.transport.write(output)
        if ended is not None:
            self._shut()
        if finished is not None:
            self._finished(finished)
        elif ended is not None:
            self._session_over(ended)
        elif introduced is not None and self._work is not None:
            self._introduced(self._work, introduced)
        elif machine.answers != answers:
            self._wait()
            if machine.step is _CLOSED and self._alive:  # QUIT was answered
                self.transport.close()

    def _ask(self) -> None:
        """Write what is to be said, and wait for its answer."""
        self._flush()
        self._wait()

    def _flush(self) -> None:
        output = self.machine.take_output()
        if output and self._transport is not None:
            self._transport.write(output)

    def _end_session(self, result: Result) -> None:
        """We end it, for a reason of our own."""
        ended = self.machine.end(result)
        self._shut()
        self._session_over(ended)

    def _shut(self) -> None:
        """The connection is of no more use; nothing that is still in a buffer may go out."""
        self._alive = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()

    def _session_over(self, ended: ConnectionEnded) -> None:
        self.ended = ended
        if self._work is not None:
            self._session_ended(self._work, ended)
        elif self._lost is None:
            self._tell(ended)
        elif not self._closing:
            self._closing = True
            if self._failed is not None and self._broke_after_starttls(ended):
                self._failed()
            self._lost(self)

    def _broke_after_starttls(self, ended: ConnectionEnded) -> bool:
        """A remote that refuses STARTTLS and closes: the next connection goes without (RFC 7435 §3)."""
        return self.machine.tls_refused and ended.result.reply is None

    def _tell(self, event: ClientEvent) -> None:
        """An event of the set-up."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(event)
        elif self._lost is None:
            self._opening.append(event)

    def eof_received(self) -> bool:
        return False  # close; what is half open is of no use to SMTP

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._alive:
            return  # it was us
        text, status = "the remote closed the connection", "4.4.2"
        if isinstance(exc, OSError):
            text = f"the connection was lost: {why(exc)}"
            if isinstance(exc, ssl.SSLError):  # with TLS 1.3 our certificate is judged behind the handshake
                status = "4.7.5"
        ended = self.machine.lost(status, text)
        self._shut()
        self._session_over(ended)

    # -- time ----------------------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """What is being waited for now is waited for from now on. The timer finds out about it when it goes off."""
        if self._alive:
            self._since = self._loop.time()
            if self._timer is None:
                self._arm(self._since)

    @property
    def _deadline(self) -> float:
        """Loop time at which we have waited long enough."""
        deadline = self._since + self._limit_s
        return deadline if self._work is None else min(deadline, self._work.ends)

    @property
    def _limit_s(self) -> float:
        """How long what is being waited for may take."""
        step, limits_s = self.machine.step, self._shared.limits_s
        if self._paused:
            return limits_s[Step.CONTENT]
        if step is Step.IDLE:
            if self._work is not None:  # we look through the content
                return self._shared.options.transaction_s
            if self._lost is None:  # we prepare what is said next: a token, a password's hash
                return limits_s[Step.RESPONSE]
        return limits_s[step]

    def _arm(self, now: float) -> None:
        """Have the timer go off at the deadline, but no later than the shortest limit from now: so no wait that is
        still to come wants it earlier, and none has to move it."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(min(self._deadline, now + self._shared.look_s), self._ticked)

    def _ticked(self) -> None:
        self._timer = None
        now = self._loop.time()
        if now + _TIMER_SLACK_S < self._deadline:
            self._arm(now)
            return
        step = self.machine.step
        waits_for = Step.CONTENT if self._paused else step
        if step is Step.IDLE and self._work is None and self._lost is not None:
            self._idle_ended()
        elif step in (Step.QUIT, Step.CLOSED):
            self.abort()
        elif self._work is not None and now + _TIMER_SLACK_S >= self._work.ends:
            self._end_session(over_time(waits_for, self._shared.options.transaction_s))
        else:
            found = silent(waits_for, self._limit_s)
            if step in _IN_A_GROUP and self.machine.capabilities.pipelining and not self._paused:
                found = self._answered_in_part(found)
            self._end_session(found)

    def _answered_in_part(self, silence: Result) -> Result:
        """The remote has answered MAIL, and not what came in one group with it. It may have thrown that away, though it
        offers PIPELINING (so do some firewalls): the next connection says one command at a time."""
        if self._broken is None:
            return silence
        self._broken("PIPELINING")
        return answered_in_part(silence)

    def _idle_ended(self) -> None:
        if self._closing or self._lost is None:
            self.abort()
            return
        self._lost(self)
        self.close()


_IN_A_GROUP: Final = (Step.RCPT, Step.DATA)
