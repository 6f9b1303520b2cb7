"""The server's side of SMTP and LMTP without I/O: octets in, commands out, replies in, octets out.

The host feeds the octets that it has read, takes commands with `next_command` until there is none, answers each that
needs an answer, and writes the octets of `take_output` before it waits for more (RFC 2920 §3.2 (7)). Commands come one
at a time: the next only after the last was answered, so replies stand in the order of commands (RFC 2920 §3.2 (1)).

What always holds: the host sees legal commands only; every command has exactly one reply (over LMTP the content has one
per accepted recipient), made here if syntax, order or a limit is broken; no octets raise an exception; how the stream
was split changes nothing, except that a client which does not wait when it must is caught only when its octets have
come. Memory is bounded by `ProtocolLimits` and by what the host feeds.

How it fails: with 421 (554 5.5.0 for improper pipelining) and `TooManyErrors`, after which nothing is read any more. An
exception from here is a bug of the machine, or of a host that answers without a question.

RFC 5321, RFC 2033 (LMTP), RFC 2920 (PIPELINING), RFC 3030 (CHUNKING), RFC 3207 (STARTTLS), RFC 4954 (AUTH), RFC 2034
(enhanced status codes). Not here: time limits, policy, SASL mechanisms (`sasl`), the syntax of arguments (`grammar`),
content (`data`), the order of commands (`state`).
"""

from __future__ import annotations

import binascii
import re
import sys
from collections.abc import Callable
from typing import Any, Final

from postroad.mail.envelope import Body
from postroad.mail.reply import Reply, encode, reply
from postroad.protocol import answers
from postroad.protocol.command import (
    Auth,
    AuthCancelled,
    AuthResponse,
    Chunk,
    Command,
    Connected,
    Content,
    Data,
    Declined,
    Etrn,
    Hello,
    Help,
    Mail,
    Overflow,
    Quit,
    Rcpt,
    Reset,
    StartTls,
    TooManyErrors,
    Vrfy,
    Xclient,
    Xforward,
)
from postroad.protocol.data import ChunkReader, DataReader, RefusedChunk, Scrutiny
from postroad.protocol.extension import NO_TERMS, terms
from postroad.protocol.grammar import BAD_SYNTAX, parse_hello, parse_mail, parse_rcpt, plain_mail, plain_rcpt
from postroad.protocol.limits import ProtocolLimits, StrayLineEnds
from postroad.protocol.offer import Dialect, Offer
from postroad.protocol.state import BAD_ORDER, NEXT, Session, State, Transaction, Verb
from postroad.protocol.xclient import parse_xclient, parse_xforward

__all__ = ["Dialect", "Offer", "ProtocolLimits", "ServerMachine", "State", "StrayLineEnds"]

# RFC 3207 §4, RFC 4954 §6: what may be said before TLS, or before authentication, if that is demanded
_BEFORE_TLS: Final = frozenset({Verb.NOOP, Verb.EHLO, Verb.LHLO, Verb.STARTTLS, Verb.QUIT})
_BEFORE_AUTH: Final = frozenset(
    {
        Verb.AUTH, Verb.EHLO, Verb.HELO, Verb.LHLO, Verb.NOOP, Verb.RSET, Verb.QUIT, Verb.STARTTLS, Verb.XCLIENT,
        Verb.XFORWARD,
    }
)

_VERBS: Final = {verb.name.encode(): verb for verb in Verb}
_SMTP_HELLOS: Final = frozenset({Verb.EHLO, Verb.HELO})
_LMTP_HELLOS: Final = frozenset({Verb.LHLO})
# RFC 5321 Appendix F, RFC 821 §3.4, §3.8: known, and not implemented
_OBSOLETE: Final = frozenset({b"TURN", b"SEND", b"SOML", b"SAML"})
# What brings mail or logs in: the host may tell of its refusal.
_TOLD: Final = frozenset({b"MAIL", b"RCPT", b"DATA", b"BDAT", b"AUTH", b"EHLO", b"HELO", b"LHLO"})
# A browser made to speak to us (cross-protocol request): nothing it sends is mail.
_HTTP: Final = frozenset(
    {b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"PRI"}
)
_TLS_RECORD: Final = b"\x16\x03"  # a handshake on a port without implicit TLS

_BLANK: Final = b" \t"  # what may stand behind an argument; CR and LF alone are no white space (RFC 5321 §2.3.8)
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
# RFC 3030 §2: bdat-cmd = "BDAT" SP chunk-size [ SP end-marker ] CRLF; chunk-size = 1*DIGIT; end-marker = "LAST"
_BDAT: Final = re.compile(rb"BDAT +([0-9]{1,20})( +LAST)?[ \t]*", re.IGNORECASE)


SMALL_CHUNK: Final = 64  # octets; a chunk of fewer counts as a command that carries no mail
_NEVER: Final = sys.maxsize

_PLAIN_EHLO: Final = re.compile(rb"....\x20[A-Za-z0-9.:_\[\]-]+")


# Members of an Enum by plain names: on Python 3.11 each access through its class costs as much as a dict look-up more.
_AUTH: Final = State.AUTH
_CLOSED: Final = State.CLOSED
_CONNECTED: Final = State.CONNECTED
_CONTENT: Final = State.CONTENT
_READY: Final = State.READY
_RCPT: Final = State.RCPT
_VERB_EHLO: Final = Verb.EHLO
_VERB_MAIL: Final = Verb.MAIL
_VERB_RCPT: Final = Verb.RCPT
_VERB_DATA: Final = Verb.DATA
_BINARY_MIME: Final = Body.BINARY_MIME
_LMTP: Final = Dialect.LMTP
_STRAYS_OF_KNOWN: Final = StrayLineEnds.KNOWN
_DATA: Final = Data()

DECLINED_MAX: Final = 64
"""Refused commands that are kept for the host; those behind are not told."""

CHUNK_LEAST: Final = 4_096
"""Octets that a chunk behind a refused one counts for at least, so that `swallow_max` bounds empty chunks, too."""


class ServerMachine:
    """One session, from the connection to its end. SMTP or LMTP by `dialect`."""

    __slots__ = (
        "_at", "_awaited", "_barren", "_content", "_demand", "_discarded", "_domains", "_excused", "_faults", "_idle",
        "_limits", "_line_usual", "_listening", "_mails", "_name", "_others", "_output", "_pending", "_pipelining",
        "_refused", "_refused_for", "_session", "_skip", "_state", "_swallowed", "_taken", "_transaction", "declined",
        "dialect", "early_talker", "errors", "last_error", "loose", "refusing", "turn", "unread",
    )  # fmt: skip

    def __init__(self, dialect: Dialect, offer: Offer, limits: ProtocolLimits) -> None:
        self.dialect = dialect
        self.early_talker = False  # octets came before the greeting was given (RFC 5321 §4.3.1: SHOULD wait)
        self.errors = 0  # of protocol, in the whole session
        self.last_error: Reply | None = None  # the answer to the last of them that was not the end of the session
        self.declined: list[Declined] = []  # commands refused here, for the host to take; it need not
        self._limits = limits
        self._state = _CONNECTED
        self._session = Session(offer)
        self._transaction: Transaction | None = None
        self._demand: tuple[frozenset[Verb], Reply] | None = None
        self._pipelining = False
        self._name = ""  # our own, as the greeting said it
        self.unread = b""  # octets that were fed, as long as some of them are not taken, else b""
        self._at = 0  # how many of these were taken
        self._output: list[bytes] = []
        self._pending: Command | None = None  # asked of the host and not answered
        self._awaited = 0  # replies that the pending content still needs (LMTP)
        self._content: DataReader | ChunkReader | RefusedChunk | None = None  # reads the octets, while it is set
        self._listening = False  # lines or content are read; else only `loose` is to be had
        self.loose: Command | None = Connected()  # the next command, beside the stream
        self._skip: Reply | None = None  # an endless line is being swallowed, and this will answer it
        self._line_usual = limits.command_line_max - 2  # a longer line is looked at closely
        self._taken = 0  # lines read in the whole session
        self.turn = _NEVER  # how many more may be read in the host's turn; the host sets it at the beginning of each
        # Since the last accepted message: errors, idle commands, octets thrown away; and how many lines there may be
        # in the session before the next one.
        self._faults = self._idle = self._discarded = 0
        self._barren = limits.commands_max + limits.recipients_max
        self._others = 0  # clients that XCLIENT has named since
        self._mails = 0  # transactions begun, if they are limited
        self._refused: Reply | None = None  # the answer to a chunk; chunks that follow hear it again
        self._refused_for = 0  # recipients that the failed transaction had
        self._swallowed = 0  # octets of that chunk, and of those behind it that have ended
        self.refusing = False  # whether what comes may be refused content; `swallowed` says how much has come
        self._excused = 0  # commands that may follow a refused MAIL or RCPT in the pipeline and are no errors
        self._domains: frozenset[str] = frozenset()  # of recipients accepted in the session, if they are limited

    # ---- what the host reads

    @property
    def state(self) -> State:
        return self._state

    @property
    def hello(self) -> str:
        """The argument of the last EHLO, HELO or LHLO, "" before."""
        return self._session.hello

    @property
    def esmtp(self) -> bool:
        """Whether the session was begun with EHLO or LHLO."""
        return self._session.esmtp

    @property
    def identity(self) -> str:
        return self._session.identity

    @property
    def offer(self) -> Offer:
        return self._session.offer

    @property
    def buffered(self) -> int:
        """Octets that were fed and not yet read. The host pauses reading above a limit of its own."""
        return len(self.unread) - self._at

    @property
    def in_content(self) -> bool:
        """Whether what comes next is content, and no command."""
        return self._content is not None

    @property
    def swallowed(self) -> int:
        """Octets of refused content that have come since its refusal. 0: what comes is no refused content, as always
        while not `refusing`."""
        content = self._content
        return self._swallowed if content is None else self._swallowed + content.swallowed

    @property
    def interrupted(self) -> bool:
        """Whether the turn is over and octets are left: `next_command` gives None until the next turn begins."""
        return self.turn <= 0 and self.unread != b""

    def spend(self, commands: int) -> None:
        """The last command has cost the host as much as so many more: its turn is the shorter for it."""
        self.turn -= commands

    def peek(self, most: int) -> bytes:
        """The first of these octets, for the log."""
        return bytes(self.unread[self._at : self._at + most])

    # ---- octets

    def feed(self, octets: bytes) -> None:
        """Octets from the client. Before TLS has started, and after the end, they are thrown away."""
        unread = self.unread
        self.unread = unread[self._at :] + octets if unread else octets
        self._at = 0
        if not self._listening:
            self._feed_unheard()

    def _feed_unheard(self) -> None:
        if self._state is _CONNECTED:
            self.early_talker = True
        elif self._state is State.TLS or self._state is _CLOSED:
            self.unread = b""  # RFC 3207 §4.2, CVE-2011-0411

    def take_output(self) -> bytes:
        """What to write now, b"" for nothing."""
        output = self._output
        if not output:
            return b""
        octets = b"".join(output)
        output.clear()
        return octets

    # ---- commands

    def next_command(self) -> Command | None:
        """The next command, None while more octets are needed, the last command is unanswered or the turn is over."""
        if self._pending is not None:
            return None
        if not self._listening:
            return self._take_loose()
        while True:
            content = self._content
            if content is None:
                octets = self.unread
                if not octets or self.turn <= 0:
                    return None
                at = self._at
                end = octets.find(b"\r\n", at)
                if end < 0:
                    return self._unfinished()
                if end + 2 == len(octets):  # most often, as a client waits for each answer
                    self.unread, self._at = b"", 0
                else:  # only a client that does not wait can use up its turn
                    self._at = end + 2
                    self.turn -= 1
                self._taken += 1
                line = octets[at:end]
                if end - at > self._line_usual or self._taken > self._barren:
                    command = self._unusual(line)
                else:
                    handler = _HANDLERS.get(line[:5].upper())
                    command = handler(self, line) if handler is not None else self._other(line)
                if command is not None:
                    return command
            else:
                command = self._read_content(content)
                if command is not None or self._content is content:
                    return command

    def _take_loose(self) -> Command | None:
        """What is to be said beside the stream: the first command, the end of a chunk, or the last word."""
        command, self.loose = self.loose, None
        if isinstance(command, Connected):
            self._pending = command
        elif isinstance(command, Chunk):
            self._pending = command
            self._listening = True
        return command

    def _unfinished(self) -> Command | None:
        """There is no whole line (RFC 5321 §2.3.8: CRLF and nothing else ends one)."""
        rest = self.unread = self.unread[self._at :]
        self._at = 0
        if self._skip is None:
            if self._speaks_tls(rest):
                return self._tls_unexpected()
            is_auth = self._is_auth(rest)
            if len(rest) < (self._limits.auth_line_max if is_auth else self._limits.command_line_max):
                return None
            if self._is_bdat(rest):
                return self._endless_bdat()
            self._skip = answers.AUTH_TOO_LONG if is_auth else answers.LINE_TOO_LONG
            self._look_closely()
        # A long line is swallowed to its end, so that its tail is not taken for a command.
        self._discarded += len(rest)
        self.unread = b"\r" if rest.endswith(b"\r") else b""
        if self._discarded > self._limits.swallow_max:
            return self._end(421, "4.7.0", "Line without an end")
        return None

    def _is_auth(self, line: bytes) -> bool:
        return self._state is _AUTH or line[:5].upper() == b"AUTH "

    def _speaks_tls(self, line: bytes) -> bool:
        return self._state is State.GREETED and line.startswith(_TLS_RECORD)

    def _tls_unexpected(self) -> Command:
        return self._end(421, "4.7.0", "TLS is not spoken at once on this port")

    def _is_bdat(self, line: bytes) -> bool:
        return self._state is not _AUTH and line[:5].upper() == b"BDAT "

    def _endless_bdat(self) -> Command:
        """Where the chunk ends is unknown: what follows could be content, and must not be taken for commands."""
        return self._end(421, "4.5.4", "BDAT without a size")

    def _look_closely(self) -> None:
        """Set from how many octets on a line is an unusual one: all are, if the next line ends one that was too long,
        or answers a challenge."""
        unusual = self._skip is not None or self._state is _AUTH
        self._line_usual = -1 if unusual else self._limits.command_line_max - 2

    def _unusual(self, line: bytes) -> Command | None:
        """A line that is long, of an AUTH exchange, or beyond what a session may say without mail."""
        if self._taken > self._barren:
            return self._end(421, "4.7.0", "Too many commands without mail")
        if self._skip is not None or len(line) > self._limits.command_line_max - 2:
            if self._skip is None and (self._speaks_tls(line) or self._is_bdat(line)):
                return self._tls_unexpected() if self._speaks_tls(line) else self._endless_bdat()
            too_long = self._too_long(line)
            if too_long is not None:
                in_auth = self._state is _AUTH
                return self._auth_broken(too_long) if in_auth else self._decline(_verb(line), line, too_long)
        if self._state is _AUTH:
            return self._auth_response(line)
        handler = _HANDLERS.get(line[:5].upper())
        return handler(self, line) if handler is not None else self._other(line)

    def _too_long(self, line: bytes) -> Reply | None:
        if self._skip is not None:
            answer, self._skip = self._skip, None
            self._look_closely()
            return answer
        if not self._is_auth(line):
            return answers.LINE_TOO_LONG
        return answers.AUTH_TOO_LONG if len(line) > self._limits.auth_line_max - 2 else None

    # ---- order

    def _may(self, verb: Verb) -> bool:
        return (self._state, verb) in NEXT and (self._demand is None or verb in self._demand[0])

    def _not_now(self, verb: Verb) -> Reply:
        """Why `_may` said no."""
        if self._demand is not None and verb not in self._demand[0]:
            return self._demand[1]
        transaction = self._transaction
        if (
            self._state is State.MAIL
            and (verb is _VERB_DATA or verb is Verb.BDAT)
            and transaction is not None
            and transaction.refused
            and self.dialect is Dialect.SMTP  # RFC 2033 §4.2 demands 503
        ):
            return answers.NO_VALID_RECIPIENTS
        return BAD_ORDER[self._state]

    def _ran_ahead(self) -> bool:
        """Whether octets have come behind a command that must be the last of a group (RFC 2920 §3.1)."""
        return self.unread != b"" and self._limits.pipelining_strict

    # ---- the way of a message

    def _mail(self, line: bytes) -> Command | None:
        if self._excused or self._refused is not None:
            self._forget_refusal()
        if (self._state is not _READY or self._demand is not None) and not self._may(_VERB_MAIL):
            if self._transaction is None:
                self._excuse(self._limits.recipients_max + 1)
            return self._decline("MAIL", line, self._not_now(_VERB_MAIL))
        if not self._pipelining and self.unread and self._ran_ahead():
            return self._improper("MAIL", line)
        if self._limits.transactions_max and self._mails >= self._limits.transactions_max:  # RFC 9422: MAILMAX
            return self._end(421, "4.7.0", "Too many transactions in one session", offence=False)
        mail = plain_mail(line)
        if mail is None:
            agreed = self._session.terms
            allowed, loose = agreed.mail | (agreed.keywords & _FLAGS), self._session.offer.loose_paths
            parsed = parse_mail(line.rstrip(_BLANK), allowed, self._limits, loose=loose)
            gone = self._session.gone
            if isinstance(parsed, Reply):
                self._excuse(self._limits.recipients_max + 1)
                if gone is None:
                    return self._decline("MAIL", line, parsed)
                allowed = gone.mail | (gone.keywords & _FLAGS)
                before = parse_mail(line.rstrip(_BLANK), allowed, self._limits, loose=loose)
                if isinstance(before, Reply):
                    return self._decline("MAIL", line, parsed)
                return self._spare("MAIL", line, answers.NOT_ANY_MORE)
            mail = parsed
        self._pending = mail
        return mail

    def _rcpt(self, line: bytes) -> Command | None:
        transaction = self._transaction
        if not self._may(_VERB_RCPT) or transaction is None:
            return self._out_of_order(_VERB_RCPT, line)
        if self._refused is not None:  # what the next chunk is refused with may be another thing now
            self._forget_refusal()
        if not self._pipelining and self.unread and self._ran_ahead():
            return self._improper("RCPT", line)
        rcpt = plain_rcpt(line)
        if rcpt is None:
            agreed, smtputf8 = self._session.terms, transaction.mail.smtputf8
            allowed = agreed.rcpt | (agreed.keywords & _FLAGS)
            loose = self._session.offer.loose_paths
            parsed = parse_rcpt(line.rstrip(_BLANK), allowed, self._limits, smtputf8=smtputf8, loose=loose)
            if isinstance(parsed, Reply):
                transaction.refused += 1
                self._excuse(1)
                return self._rcpt_error(parsed, line, smtputf8=smtputf8)
            rcpt = parsed
        if transaction.accepted >= self._limits.recipients_max:
            # No error of the client's: it goes on in a next transaction.
            return self._spare("RCPT", line, answers.TOO_MANY_RECIPIENTS)
        if self._limits.recipient_domains_max and not self._has_room_for(rcpt.forward_path.domain):
            return self._spare("RCPT", line, answers.TOO_MANY_DOMAINS)
        self._pending = rcpt
        return rcpt

    def _rcpt_error(self, answer: Reply, line: bytes, *, smtputf8: bool) -> Command | None:
        gone = self._session.gone
        if gone is None:
            return self._decline("RCPT", line, answer)
        allowed = gone.rcpt | (gone.keywords & _FLAGS)
        loose = self._session.offer.loose_paths
        before = parse_rcpt(line.rstrip(_BLANK), allowed, self._limits, smtputf8=smtputf8, loose=loose)
        if isinstance(before, Reply):
            return self._decline("RCPT", line, answer)
        # It was announced: no error of the client's, who may come again.
        return self._spare("RCPT", line, answers.NOT_ANY_MORE)

    def _spare(self, verb: str, line: bytes, answer: Reply) -> Command | None:
        """Refuse what is no error of the client's."""
        self._output.append(encode(answer))
        self._note_declined(verb, line, answer)
        return None

    def _decline(self, verb: str, line: bytes, answer: Reply) -> Command | None:
        """An error by which mail or a log-in is refused: the host may tell of it."""
        command = self._error(answer)
        if command is None:
            self._note_declined(verb, line, answer)
        return command

    def _note_declined(self, verb: str, line: bytes, answer: Reply) -> None:
        if verb and len(self.declined) < DECLINED_MAX:
            transaction = self._transaction
            path = transaction.mail.reverse_path if transaction is not None else None
            self.declined.append(Declined(verb, line, answer, path))

    def _has_room_for(self, domain: str) -> bool:
        """RFC 9422 §4.3: RCPTDOMAINMAX counts the different domains of a session."""
        return domain in self._domains or len(self._domains) < self._limits.recipient_domains_max

    def _data(self, line: bytes) -> Command | None:
        transaction = self._transaction
        if not self._may(_VERB_DATA) or transaction is None:
            return self._out_of_order(_VERB_DATA, line)
        if len(line) > 4 and line[4:].strip(_BLANK):
            return self._decline("DATA", line, answers.NO_ARGUMENT)
        if transaction.mail.body is _BINARY_MIME:
            return self._decline("DATA", line, answers.NOT_BINARY)
        if self.unread and self._ran_ahead():
            return self._improper("DATA", line)
        self._pending = _DATA
        return _DATA

    def _excuse(self, commands: int) -> None:
        """So many commands may have been sent before the client could know that MAIL or RCPT was refused (RFC 2920
        §3.1): they are refused, too, and count as no errors."""
        self._excused = max(self._excused, commands)

    def _out_of_order(self, verb: Verb, line: bytes) -> Command | None:
        answer = self._not_now(verb)
        if not self._excused:
            return self._decline(verb.name, line, answer)
        self._excused -= 1
        self._output.append(encode(answer))
        return None

    def _bdat(self, line: bytes) -> Command | None:
        found = _BDAT.fullmatch(line)
        if found is None:
            return self._endless_bdat()
        size, last = int(found[1]), found[2] is not None
        refusal = self._bdat_refusal()
        transaction = self._transaction
        if refusal is not None or transaction is None:
            return self._refuse_chunk(size, refusal or BAD_ORDER[State.READY], last=last)
        if self._refused is not None:
            self._forget_refusal()
        if size >= SMALL_CHUNK:
            self._barren += 1  # it brings mail
        elif not size and not last and (command := self._count_idle()) is not None:
            return command
        chunks = transaction.chunks
        if chunks is None:
            binary = transaction.mail.body is _BINARY_MIME
            scrutiny = Scrutiny(self._limits, binary=binary, repairs=self._repairs())
            chunks = transaction.chunks = ChunkReader(scrutiny, self._limits.piece_size)
        chunks.begin(size, last=last)
        if chunks.scrutiny.fault is not None and size + self._discarded > self._limits.swallow_max:
            return self._end(421, "4.5.4", "Chunk too large")
        self._state = NEXT[self._state, Verb.BDAT]
        self._content = chunks
        return None

    def _refuse_chunk(self, size: int, answer: Reply, *, last: bool) -> Command | None:
        """A chunk that nothing is to take. Behind a refused one it was in the pipeline already (RFC 3030 §2): it hears
        the same again, over LMTP behind LAST once for each recipient (RFC 2033 §4.3), and counts as no error."""
        if self._discarded + self._swallowed + max(size, CHUNK_LEAST) > self._limits.swallow_max:
            return self._end(421, "4.5.4", "Chunk too large")
        again = self._refused
        counts = again is None
        if counts and self._excused:
            self._excused -= 1
            counts = False
        replies = self._refused_for if again is not None and last and self.dialect is _LMTP else 1
        self._content = RefusedChunk(size, again or answer, last=last, counts=counts, replies=max(1, replies))
        return None

    def _chunk_refused(self, chunk: RefusedChunk) -> Command | None:
        """All of it has come."""
        self._remember_refusal(chunk.answer, chunk.swallowed, last=chunk.last)
        if chunk.counts:
            return self._decline("BDAT", b"", chunk.answer)
        self._output.append(encode(chunk.answer) * chunk.replies)
        return None

    def _remember_refusal(self, answer: Reply, swallowed: int, *, last: bool) -> None:
        """What chunks behind this refused one will hear; behind the last there are none (RFC 3030 §2: 503)."""
        if last:
            self._discarded += swallowed
            self._forget_refusal()
        else:
            self._refused = answer
            self.refusing = True
            self._swallowed += max(swallowed, CHUNK_LEAST)

    def _forget_refusal(self) -> None:
        if not self.refusing and not self._excused and self._refused is None:
            return  # most often
        self._refused = None
        self.refusing = False
        self._discarded += self._swallowed
        self._refused_for = self._swallowed = self._excused = 0

    def _repairs(self) -> bool:
        """Whether stray CR and LF in the client's content are mended."""
        wanted = self._limits.stray_line_ends
        if wanted is _STRAYS_OF_KNOWN:
            return self._session.offer.known or self._session.identity != ""
        return wanted is StrayLineEnds.REPAIR

    def _bdat_refusal(self) -> Reply | None:
        if self._may(Verb.BDAT) and "BDAT" in self._session.terms.verbs:
            return None
        if not self._session.offer.chunking:
            return answers.NOT_IMPLEMENTED
        return self._not_now(Verb.BDAT) if not self._may(Verb.BDAT) else answers.NEEDS_EHLO

    def _read_content(self, content: DataReader | ChunkReader | RefusedChunk) -> Command | None:
        self._at, piece, ended = content.read(self.unread, self._at)
        if self._at == len(self.unread):
            self.unread, self._at = b"", 0
        if not ended:
            if content.swallowed:
                self.refusing = True
                if self.swallowed + self._discarded > self._limits.swallow_max:
                    return self._end(421, "4.7.0", "Content without an end")
            return Content(piece, False) if piece else None
        self._content = None
        if isinstance(content, RefusedChunk):
            return self._chunk_refused(content)
        last = not isinstance(content, ChunkReader) or content.last
        fault = content.scrutiny.fault
        if fault is not None:
            return self._overflow(fault, content.swallowed, last=last)
        if last:
            command = self._pending = Content(piece, True)
            return command
        chunk = Chunk(content.size) if isinstance(content, ChunkReader) else None
        if piece:
            self._listening, self.loose = False, chunk
            return Content(piece, False)
        self._pending = chunk
        return chunk

    def _overflow(self, fault: Reply, swallowed: int, *, last: bool) -> Command:
        """Content that was refused on its way, now that all of it, or of its chunk, has come."""
        transaction = self._transaction
        accepted = transaction.accepted if transaction is not None else 0
        self._output.append(encode(fault) * (accepted if last and self.dialect is _LMTP else 1))
        self.errors += 1
        self.last_error = fault
        self._faults += 1
        self._drop_transaction()
        self._remember_refusal(fault, swallowed, last=last)
        self._refused_for = 0 if last else accepted
        return Overflow(fault)

    def _drop_transaction(self) -> None:
        self._transaction = None
        self._state = _READY

    # ---- other commands

    def _other(self, line: bytes) -> Command | None:
        if _CONTROL.search(line):
            return self._tls_unexpected() if self._speaks_tls(line) else self._error(answers.BAD_OCTETS)
        word, _, argument = line.rstrip(b" \t").partition(b" ")
        word = word.upper()
        verb = _VERBS.get(word)
        if verb is None:
            if word in _HTTP:
                return self._end(421, "4.7.0", "This is not an HTTP server")
            return self._error(answers.NOT_IMPLEMENTED if word in _OBSOLETE else answers.UNKNOWN)
        argument = argument.lstrip(b" ")
        match verb:
            case Verb.EHLO | Verb.HELO | Verb.LHLO:
                return self._hello(verb, argument)
            case Verb.NOOP:
                return self._noop()
            case Verb.RSET:
                return self._rset(argument)
            case Verb.QUIT:
                return self._quit(argument)
            case Verb.STARTTLS:
                return self._starttls(argument)
            case Verb.AUTH:
                return self._auth(argument)
            case Verb.VRFY | Verb.EXPN:
                return self._vrfy(verb, argument)
            case Verb.HELP:
                return self._help(argument)
            case Verb.ETRN:
                return self._etrn(argument)
            case Verb.XCLIENT | Verb.XFORWARD:
                return self._speak_for(verb, argument)
            case _:  # MAIL, RCPT, DATA and BDAT came by `_HANDLERS` unless their argument is malformed
                handler = _HANDLERS[word]
                return handler(self, line)

    def _hello(self, verb: Verb, argument: bytes) -> Command | None:
        if verb not in (_LMTP_HELLOS if self.dialect is _LMTP else _SMTP_HELLOS):
            return self._decline(verb.name, argument, answers.OTHER_DIALECT)
        if not self._may(verb):
            return self._error(self._not_now(verb))
        name = parse_hello(argument)
        if name is None:
            return self._decline(verb.name, argument, answers.BAD_HELLO)
        if self.unread and self._ran_ahead():
            return self._improper()
        if (command := self._count_idle()) is not None:
            return command
        self._pending = Hello(verb._name_, name)
        return self._pending

    def _plain_ehlo(self, line: bytes) -> Command | None:
        """The usual way to write it; all others by `_other`."""
        if _PLAIN_EHLO.fullmatch(line) is None:
            return self._other(line)
        return self._hello(_VERB_EHLO, line[5:])

    def _plain_quit(self, line: bytes) -> Command | None:
        return self._quit(b"") if len(line) == 4 else self._other(line)

    def _noop(self) -> Command | None:
        if not self._may(Verb.NOOP):
            return self._error(self._not_now(Verb.NOOP))
        if (command := self._count_idle()) is not None:
            return command
        self._output.append(encode(answers.OK))
        return None

    def _rset(self, argument: bytes) -> Command | None:
        if not self._may(Verb.RSET):
            return self._error(self._not_now(Verb.RSET))
        if argument:
            return self._error(answers.NO_ARGUMENT)
        if (command := self._count_idle()) is not None:
            return command
        self._state = NEXT[self._state, Verb.RSET]
        self._transaction = None
        self._forget_refusal()
        self._output.append(encode(answers.OK))
        return Reset()

    def _quit(self, argument: bytes) -> Command | None:
        if argument:
            return self._error(answers.NO_ARGUMENT)
        # RFC 5321 §4.2: the domain comes first in the text of 221 and 421
        self._output.append(encode(reply(221, "2.0.0", f"{self._name} Service closing transmission channel".lstrip())))
        self._close()
        return Quit()

    def _starttls(self, argument: bytes) -> Command | None:
        offer = self._session.offer
        if offer.tls:
            return self._error(answers.TLS_ACTIVE)
        if not offer.starttls:
            return self._error(answers.NOT_IMPLEMENTED)
        if not self._may(Verb.STARTTLS):
            return self._error(self._not_now(Verb.STARTTLS))
        if not self._session.esmtp:
            return self._error(answers.NEEDS_EHLO)
        if argument:
            return self._error(answers.NO_ARGUMENT)
        self._output.append(encode(answers.READY_FOR_TLS))
        self._close()
        self._state = State.TLS
        return StartTls()

    def _vrfy(self, verb: Verb, argument: bytes) -> Command | None:
        if not self._may(verb):
            return self._error(self._not_now(verb))
        offer = self._session.offer
        if not offer.expn if verb is Verb.EXPN else offer.vrfy_off:
            return self._error(answers.NOT_IMPLEMENTED)
        try:
            text = argument.decode("utf-8")
        except UnicodeDecodeError:
            return self._error(BAD_SYNTAX)
        # RFC 6531 §3.7.4.2: vrfy = "VRFY" SP String [ SP "SMTPUTF8" ] CRLF
        smtputf8 = "SMTPUTF8" in self._session.terms.keywords and text.upper().endswith(" SMTPUTF8")
        if smtputf8:
            text = text[:-9].rstrip()
        if not text:
            return self._error(BAD_SYNTAX)
        if (command := self._count_idle()) is not None:
            return command
        if verb is Verb.VRFY and not offer.vrfy:
            self._output.append(encode(answers.CANNOT_VRFY))
            return None
        self._pending = Vrfy(verb.name, text, smtputf8)
        return self._pending

    def _help(self, argument: bytes) -> Command | None:
        if not self._may(Verb.HELP):
            return self._error(self._not_now(Verb.HELP))
        if not self._session.offer.help:
            return self._error(answers.NOT_IMPLEMENTED)
        if (command := self._count_idle()) is not None:
            return command
        self._pending = Help(argument.decode("utf-8", "replace"))
        return self._pending

    def _etrn(self, argument: bytes) -> Command | None:
        if not self._session.offer.etrn or self.dialect is _LMTP:
            return self._error(answers.NOT_IMPLEMENTED)
        if not self._may(Verb.ETRN):
            return self._error(self._not_now(Verb.ETRN))
        if not self._session.esmtp:
            return self._error(answers.NEEDS_EHLO)
        if not argument or b" " in argument or not argument.isascii():  # RFC 1985 §5.1
            return self._error(BAD_SYNTAX)
        if (command := self._count_idle()) is not None:
            return command
        self._pending = Etrn(argument.decode("ascii"))
        return self._pending

    def _speak_for(self, verb: Verb, argument: bytes) -> Command | None:
        """XCLIENT and XFORWARD, which are commands for those only to whom they were announced."""
        if verb.name not in self._session.terms.verbs:
            offer = self._session.offer
            offered = offer.xclient if verb is Verb.XCLIENT else offer.xforward
            return self._error(answers.NEEDS_EHLO if offered else answers.UNKNOWN)
        if not self._may(verb):
            return self._error(self._not_now(verb))
        parsed = parse_xclient(argument) if verb is Verb.XCLIENT else parse_xforward(argument)
        if isinstance(parsed, Reply):
            return self._error(parsed)
        # What follows XCLIENT would be of another session.
        if verb is Verb.XCLIENT and self.unread and self._ran_ahead():
            return self._improper()
        if (command := self._count_idle()) is not None:
            return command
        self._pending = parsed
        return parsed

    # ---- AUTH

    def _auth(self, argument: bytes) -> Command | None:
        refusal = self._auth_refusal(argument)
        if refusal is not None:
            return self._decline("AUTH", b"", refusal)
        if self.unread and self._ran_ahead():
            return self._improper("AUTH", b"")
        word, _, initial = argument.partition(b" ")
        octets: bytes | None = None
        if initial:
            # RFC 4954 §4: "=" is an initial response of no octets
            octets = b"" if initial == b"=" else _from_base64(initial)
            if octets is None:
                return self._decline("AUTH", b"", answers.BAD_BASE64)
        self._pending = Auth(word.decode("ascii").upper(), octets)
        return self._pending

    def _auth_refusal(self, argument: bytes) -> Reply | None:
        session = self._session
        offer = session.offer
        if not self._may(Verb.AUTH):
            return self._not_now(Verb.AUTH)
        if not offer.auth and not offer.auth_after_tls:
            return answers.NOT_IMPLEMENTED
        if not session.esmtp:
            return answers.NEEDS_EHLO
        if session.identity:
            return answers.AUTHENTICATED
        mechanism = argument.partition(b" ")[0].decode("ascii", "replace").upper()
        if not mechanism:
            return BAD_SYNTAX
        if mechanism in offer.auth:
            return None
        after_tls = mechanism in offer.auth_after_tls and not offer.tls
        return answers.MECHANISM_NEEDS_TLS if after_tls else answers.BAD_MECHANISM

    def _auth_response(self, line: bytes) -> Command | None:
        if line == b"*":  # RFC 4954 §4
            return self._auth_broken(answers.CANCELLED)
        octets = _from_base64(line)
        if octets is None:
            return self._auth_broken(answers.BAD_BASE64)
        self._pending = AuthResponse(octets)
        return self._pending

    def _auth_broken(self, answer: Reply) -> Command:
        self._state = _READY
        self._look_closely()
        refused = self._error(answer) if answer is answers.CANCELLED else self._decline("AUTH", b"", answer)
        return refused or AuthCancelled()

    # ---- answers

    def reply(self, answer: Reply) -> None:
        """The answer to the last command. For Content(last=True) over LMTP: once per accepted recipient, in order. For
        Hello: the greeting line only; the keywords of the offer are added here."""
        pending = self._pending
        if pending is None:
            raise RuntimeError("no command waits for an answer")
        self._pending = None
        _ANSWERED[pending.__class__](self, pending, answer)

    def _mail_answered(self, pending: Mail, answer: Reply) -> None:
        self._output.append(encode(answer))
        if 200 <= answer.code < 300:
            self._mails += 1
            self._transaction = Transaction(pending)
            self._state = NEXT[self._state, _VERB_MAIL]
        else:
            self._excuse(self._limits.recipients_max + 1)

    def _rcpt_answered(self, pending: Rcpt, answer: Reply) -> None:
        self._output.append(encode(answer))
        transaction = self._transaction
        if transaction is None:
            return
        if 200 <= answer.code < 300:
            transaction.accepted += 1
            self._state = _RCPT
            if self._limits.recipient_domains_max:
                self._domains |= {pending.forward_path.domain}
        else:
            transaction.refused += 1
            self._excuse(1)

    def _data_answered(self, pending: Data, answer: Reply) -> None:
        transaction = self._transaction
        if answer.code == 354 and transaction is not None:
            if self.unread and self._ran_ahead():  # octets came while the host thought
                self.loose = self._improper()
                return
            transaction.scrutiny = Scrutiny(self._limits, binary=False, repairs=self._repairs())
            self._content = DataReader(transaction.scrutiny, self._limits.piece_size)
            self._state = _CONTENT
        self._output.append(encode(answer))

    def _content_answered(self, pending: Content, answer: Reply) -> None:
        self._output.append(encode(answer))
        if 200 <= answer.code < 300:
            self._faults = self._idle = self._discarded = self._others = 0
            limits = self._limits
            self._barren = self._taken + limits.commands_max + limits.recipients_max
        transaction = self._transaction
        if self.dialect is _LMTP and transaction is not None:  # RFC 2033 §4.2
            transaction.accepted -= 1
            if transaction.accepted > 0:
                self._pending = pending
                return
        self._drop_transaction()

    def _chunk_answered(self, pending: Chunk, answer: Reply) -> None:
        self._output.append(encode(answer))
        if not answer.ok:  # RFC 3030 §2: what follows is refused until a new transaction
            self._refused_for = 0 if self._transaction is None else self._transaction.accepted
            self._drop_transaction()
            self._remember_refusal(answer, 0, last=False)

    def _hello_answered(self, pending: Hello, answer: Reply) -> None:
        if not answer.ok:  # RFC 5321 §4.1.4: the state stays
            self._output.append(encode(answer))
            return
        if self.unread and self._ran_ahead():
            self.loose = self._improper()
            return
        session = self._session
        if pending.verb == "HELO":
            self._session = Session(session.offer, hello=pending.name, identity=session.identity)
            self._output.append(encode(Reply(250, "", answer.lines)))
        else:
            agreed = terms(session.offer, self._limits, self.dialect)
            self._session = Session(session.offer, agreed, pending.name, True, session.identity)
            self._output.append(_extended(answer, agreed.lines, agreed.block))
        self._drop_transaction()
        self._forget_refusal()
        self._settle()

    def _connection_answered(self, pending: Connected, answer: Reply) -> None:
        self._greet(answer)

    def _other_answered(self, pending: Command, answer: Reply) -> None:
        self._output.append(encode(answer))

    def _greet(self, answer: Reply) -> None:
        self._output.append(encode(answer))
        self._name = answer.lines[0].partition(" ")[0] if answer.code == 220 and answer.lines else ""
        self._state = State.GREETED
        self._listening = True
        if answer.code == 421:
            self._close()
        elif not answer.ok:  # RFC 5321 §3.1: after 554, QUIT alone is served
            self._demand = frozenset({Verb.QUIT}), answers.NO_SERVICE
        else:
            self._settle()

    def _settle(self) -> None:
        """Work out what the session as it now is demands and allows."""
        session = self._session
        offer = session.offer
        self._pipelining = "PIPELINING" in session.terms.keywords
        if offer.tls_required and not offer.tls:
            self._demand = _BEFORE_TLS, answers.NEEDS_TLS
        elif offer.auth_required and not session.identity:
            self._demand = _BEFORE_AUTH, answers.NEEDS_AUTH
        else:
            self._demand = None

    def _auth_answered(self, pending: Auth | AuthResponse, answer: Reply) -> None:
        """The exchange ended without success."""
        self._output.append(encode(answer))
        self._state = _READY
        self._look_closely()
        self.errors += 1
        self.last_error = answer
        self._faults += 1
        if self._faults > self._limits.errors_max:
            self.loose = self._end(421, "4.7.0", "Too many errors")

    def challenge(self, octets: bytes) -> None:
        """Answer AUTH with 334 and go on with the exchange (RFC 4954 §4)."""
        if not isinstance(self._pending, Auth | AuthResponse):
            raise RuntimeError("no AUTH exchange waits for a challenge")
        self._pending = None
        self._state = _AUTH
        self._look_closely()
        self._output.append(b"334 " + binascii.b2a_base64(octets, newline=False) + b"\r\n")

    def authenticated(self, identity: str, answer: Reply, offer: Offer) -> None:
        """AUTH has succeeded: `answer` is 235, `offer` what holds from here on. EHLO need not be said again, as no
        security layer comes with a mechanism of ours (RFC 4954 §4)."""
        if not isinstance(self._pending, Auth | AuthResponse):
            raise RuntimeError("no AUTH exchange waits for its end")
        self._pending = None
        session = self._session
        agreed = terms(offer, self._limits, self.dialect)
        self._session = Session(offer, agreed, session.hello, session.esmtp, identity)
        self._state = _READY
        self._look_closely()
        self._settle()
        self._output.append(encode(answer))

    def renew(self, offer: Offer, limits: ProtocolLimits, identity: str) -> None:
        """Other settings hold from here on; no transaction is open. What EHLO has announced and is not offered any more
        counts as gone; what is new has to be announced first (RFC 5321 §4.1.1.11). `identity`: the account, "" where
        the client is none any more."""
        session = self._session
        before, self._limits = self._limits, limits
        self._look_closely()
        self._barren += limits.commands_max + limits.recipients_max - before.commands_max - before.recipients_max
        agreed, gone = session.terms, session.gone
        if agreed is not NO_TERMS:
            agreed, gone = agreed.still(terms(offer, limits, self.dialect)), gone or agreed
        self._session = Session(offer, agreed, session.hello, session.esmtp, identity, gone)
        if self._demand is None or self._demand[1] is not answers.NO_SERVICE:
            self._settle()

    def begin_anew(self, identity: str, answer: Reply, offer: Offer, *, another: bool = True) -> bool:
        """XCLIENT was taken: `answer` greets the client that it named, or refuses it; nothing of the session before
        holds any more. `identity`: of the account that it named, or "". `another`: it is another client, who does not
        pay for the one before. Whether the client is told `answer`: not if it did not wait for it."""
        if not isinstance(self._pending, Xclient):
            raise RuntimeError("no XCLIENT waits for an answer")
        self._pending = None
        if self.unread and self._ran_ahead():  # octets came while the host thought
            self.loose = self._improper()
            return False
        self._session = Session(offer, identity=identity)
        self._transaction = None
        self._forget_refusal()
        if another:
            self._mails, self._domains = 0, frozenset()
            self.errors = self._faults = self._idle = self._discarded = 0
            # Each has as many commands as any client; only who names others without end comes to an end, too.
            self._others += 1
            self._barren = self._taken + self._limits.commands_max + self._limits.recipients_max - self._others
            self.last_error, self.early_talker = None, False
        self._greet(answer)
        return True

    def tls_started(self, offer: Offer) -> None:
        """The handshake is done: a new session (RFC 3207 §4.2). Nothing from before it is known any more."""
        self.unread, self._at = b"", 0
        self._session = Session(offer)
        self._transaction = None
        self._forget_refusal()
        self._state = State.GREETED
        self._listening = True
        self._settle()

    def refuse(self, answer: Reply) -> None:
        """Say this unasked, such as 421 at a time limit, and hear no more; the host closes."""
        self._output.append(encode(answer))
        self._close()
        self.loose = None

    # ---- errors

    def _error(self, answer: Reply) -> Command | None:
        """Answer an error of protocol; the one too many ends the session instead."""
        self.errors += 1
        self._faults += 1
        if self._faults > self._limits.errors_max:
            return self._end(421, "4.7.0", "Too many errors")
        self.last_error = answer
        self._output.append(encode(answer))
        return None

    def _count_idle(self) -> Command | None:
        self._idle += 1
        if self._idle > self._limits.idle_commands_max:
            return self._end(421, "4.7.0", "Too many commands without mail")
        return None

    def _improper(self, verb: str = "", line: bytes = b"") -> Command:
        self.errors += 1
        self.last_error = answers.IMPROPER_PIPELINING
        self._output.append(encode(answers.IMPROPER_PIPELINING))
        if self._transaction is None:  # else the host knows what is cut off
            self._note_declined(verb, line, answers.IMPROPER_PIPELINING)
        self._close()
        return TooManyErrors(answers.IMPROPER_PIPELINING.text, answer=answers.IMPROPER_PIPELINING)

    def _end(self, code: int, status: str, text: str, *, offence: bool = True) -> Command:
        self._output.append(encode(reply(code, status, f"{self._name} {text}".lstrip())))
        self._close()
        return TooManyErrors(text, offence, reply(code, status, text))

    def _close(self) -> None:
        self._state = _CLOSED
        self._listening = False
        self.unread, self._at = b"", 0
        self._content = None
        self._transaction = None
        self._forget_refusal()
        self._pending = None
        self._skip = None
        self._look_closely()


def _extended(answer: Reply, lines: tuple[str, ...], block: bytes) -> bytes:
    """The reply to EHLO: the greeting line and the keywords (RFC 5321 §4.1.1.1); no status (RFC 2034 §4)."""
    if not block:
        return encode(Reply(250, "", answer.lines))
    if len(answer.lines) == 1:  # most often: only the first line differs, so only it is made anew
        return b"250-" + encode(Reply(250, "", answer.lines))[4:] + block
    return encode(Reply(250, "", (*answer.lines, *lines)))


def _verb(line: bytes) -> str:
    """The verb of a line that was not taken apart; "" if it neither brings mail nor logs in."""
    word = line[:5].rstrip(_BLANK).upper()
    return word.decode("ascii") if word in _TOLD else ""


def _from_base64(text: bytes) -> bytes | None:
    """RFC 4648 §4, strictly: no line breaks, no characters outside the alphabet, right padding."""
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError):
        return None


# What the grammar asks of the session beside parameters' own keywords.
_FLAGS: Final = frozenset({"BINARYMIME", "SMTPUTF8"})

_Handler = Callable[[ServerMachine, bytes], Command | None]

# By the first five octets in capitals, so that one look-up finds verb and delimiter.
_HANDLERS: Final[dict[bytes, _Handler]] = {
    b"MAIL ": ServerMachine._mail,
    b"RCPT ": ServerMachine._rcpt,
    b"DATA": ServerMachine._data,
    b"DATA ": ServerMachine._data,
    b"BDAT ": ServerMachine._bdat,
    b"MAIL": ServerMachine._mail,
    b"RCPT": ServerMachine._rcpt,
    b"BDAT": ServerMachine._bdat,
    b"EHLO ": ServerMachine._plain_ehlo,
    b"QUIT": ServerMachine._plain_quit,
}

# What an answer means for the session, by the command that it answers.
_ANSWERED: Final[dict[type, Callable[[ServerMachine, Any, Reply], None]]] = {
    Mail: ServerMachine._mail_answered,
    Rcpt: ServerMachine._rcpt_answered,
    Data: ServerMachine._data_answered,
    Content: ServerMachine._content_answered,
    Hello: ServerMachine._hello_answered,
    Connected: ServerMachine._connection_answered,
    Chunk: ServerMachine._chunk_answered,
    Auth: ServerMachine._auth_answered,
    AuthResponse: ServerMachine._auth_answered,
    Vrfy: ServerMachine._other_answered,
    Help: ServerMachine._other_answered,
    Etrn: ServerMachine._other_answered,
    Xclient: ServerMachine._other_answered,
    Xforward: ServerMachine._other_answered,
}
