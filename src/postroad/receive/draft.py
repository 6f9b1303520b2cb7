"""One mail transaction: the values of MAIL and RCPT, the content, and the message made of them (RFC 5321 §3.3).

What always holds: content stands in memory up to a threshold and in a file of the spool beyond it, never in both; a
transaction is dropped as a whole (`abort`). The content of an mx or relay listener is kept to the octet; that of a
submission listener is mended first (`receive.repair`). All fields that we add stand on top, and are made after the
verdict (`on_top`): small content is joined to them, large content is not, so its file has only what the client sent.

BODY: if a message is declared 7BIT and holds 8-bit octets, it is accepted, as most MTAs do, and its envelope says
8BITMIME, so that the next hop hears the truth. If it is declared 8BITMIME and is pure ASCII, the next hop hears 7BIT:
then nothing must be converted or returned if that host lacks the extension (RFC 6152 §3). BINARYMIME stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

import msgspec

from postroad.mail import message, trace, wishes
from postroad.mail.address import Address
from postroad.mail.envelope import Body, Envelope, Peer, Recipient
from postroad.mail.event import Accepted, Event, Failed, Removed
from postroad.mail.expansion import Expansion
from postroad.mail.field_rules import FieldRules
from postroad.mail.policy import Effect
from postroad.mail.report import RecipientReport
from postroad.mail.rewriting import Rewriting
from postroad.protocol.command import Mail
from postroad.protocol.grammar import parse_mailbox
from postroad.receive.doors import ContentSink
from postroad.store.values import NewContent

# Members of an Enum by plain names: on Python 3.11 each access through its class costs a look-up more.
_BINARY_MIME: Final = Body.BINARY_MIME
_SEVEN_BIT: Final = Body.SEVEN_BIT
_EIGHT_BIT_MIME: Final = Body.EIGHT_BIT_MIME


class Changes:
    """What rules want changed of a message, and what came of it. `effects`: in their order. `top`: fields that rules
    put on top, above Received. `new_content`: what takes the place of content in a file. `events`: what was found and
    changed."""

    __slots__ = ("effects", "events", "new_content", "top")

    def __init__(self) -> None:
        self.effects: tuple[Effect, ...] = ()
        self.top = b""
        self.new_content: NewContent | None = None
        self.events: tuple[Event, ...] = ()


class Draft(msgspec.Struct, eq=False):
    """What a session knows of its open transaction. One writer: the session."""

    mail: Mail
    peer: Peer
    started_us: int
    deadline: float  # loop time until which the end of data must have come
    recipients: list[Recipient] = []  # all that had their 250, in order
    refused: tuple[RecipientReport, ...] = ()  # recipients of whom the sender gets a report
    discarded: dict[int, str] = {}  # places of recipients that a rule lets go, and why
    changes: Changes | None = None  # what rules want changed; None: nothing
    rewriting: Rewriting | None = None  # other addresses, once they were asked for
    said: tuple[str, ...] = ()  # what rewriting and rules for fields have changed, in words
    held: str = ""  # why a rule holds the message, "" if none does
    dropped: str = ""  # why a rule lets the whole message go
    given: tuple[Recipient, ...] = ()  # the recipients as `wanted` says, once they were led through aliases
    expansion: Expansion | None = None  # what aliases made of the recipients, once the header section is there
    id: int = 0  # the queue id, from the first octet of content on
    pieces: list[bytes] = []
    size: int = 0  # octets as the client sent them
    counted: int = 0  # of these, octets that the budget of memory counts (`receive.budget`)
    head: bytes = b""  # the header section, once the content is finished or has gone to a file
    sent_head: bytes = b""  # the same before it was mended
    file_head: bytes = b""  # the header section of content in a file, as it stands there; only of such content
    added: bytes = b""  # fields that we add, but for Received: those of aliases, and those that were missing
    prefix: bytes = b""  # all fields that we add on top of content in a file, once the verdict is there
    message_id: str = ""
    ascii_only: bool = True
    only_crlf: bool = False  # the content is as it came, and who brought it has seen that its lines end with CRLF
    long_lines: bool = False  # there is a line longer than `LINE_MAX`
    line: int = 0  # octets of the line that content in a file has left unfinished so far
    incoming: ContentSink | None = None
    sent: int = 0  # recipients that count for what the client may send (`check.sending`)
    as_said: Mail | None = None  # MAIL as the client said it, if the sender is another one by now

    @property
    def said_sender(self) -> Address | None:
        """The sender as the client named it."""
        return (self.as_said or self.mail).reverse_path

    def change_sender(self, sender: Address | None) -> None:
        """The message is stored with another sender."""
        self.as_said = self.as_said or self.mail
        self.mail = msgspec.structs.replace(self.mail, reverse_path=sender)

    @property
    def names(self) -> tuple[str, ...]:
        """Whom the message is for, as the log and the history write it."""
        return tuple(str(each.address) for each in self.recipients)

    def abort(self) -> None:
        """Let go of all of it."""
        self.pieces.clear()
        if self.incoming is not None:
            self.incoming.abort()
            self.incoming = None

    def body(self) -> Body:
        """What the content is, as the next hop should hear it."""
        declared = self.mail.body
        if declared is _BINARY_MIME:
            return declared
        return _SEVEN_BIT if self.ascii_only else _EIGHT_BIT_MIME


Mend = Callable[[bytes], tuple[bytes, bytes]]
"""Mends content whose header section is whole (`receive.repair`): the fields to add on top, and the content."""
Owns = Callable[[str, Address], bool]
Read = Callable[["Draft", bytes], bytes]
"""Reads what the header section asks for (`receive.wishes_in`); gives the content, without what must not go on."""


def finished(draft: Draft, mend: Mend | None, read: Read | None = None) -> bytes:
    """The content in memory, as it may stand under the fields that we add: mended if that is wanted. The whole header
    section is in it. Call it once, before the rules for messages are asked."""
    pieces = draft.pieces
    octets = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    end = message.header_end(octets)
    if not end:  # else a field stands on top, and ours can stand above it
        octets = message.joining(octets)
        end = message.header_end(octets)
    draft.head = draft.sent_head = head = octets[:end]
    came = octets
    if mend is not None:
        draft.added, mended = mend(octets)
        if draft.added or mended is not octets:
            octets = mended
            draft.head = head = draft.added + octets[: message.header_end(octets)]
    if read is not None:
        octets = read(draft, octets)
        head = draft.head
    draft.message_id = (message.first(head, b"message-id") or "")[: message.MESSAGE_ID_MAX]
    draft.ascii_only = octets.isascii() and draft.added.isascii()
    draft.only_crlf = octets is came and not draft.added and draft.mail.body is not _BINARY_MIME
    draft.long_lines = not message.lines_fit(octets, message.LINE_MAX + 2)
    return octets


def with_fields(draft: Draft, octets: bytes, rules: FieldRules) -> bytes:
    """The content with its header fields as the rules of its listener want them."""
    end = message.header_end(octets)
    head, done = rules.applied(octets[:end])
    new, more = rules.coming(draft.added, head)
    draft.said += done + more
    draft.added += new
    draft.head = draft.added + head
    if not done:
        return octets
    return head + (octets[end:] if head or octets.startswith(b"\r\n", end) else b"\r\n" + octets[end:])


def spill(draft: Draft, incoming: ContentSink, mend: Mend | None, read: Read | None = None) -> bool:
    """Move what is in memory, the whole header section among it, to a file; what follows goes there, too.

    False, here and of `stream`: enough for now, as `ContentSink.write` says.
    """
    octets = finished(draft, mend, read)
    draft.file_head = octets[: message.header_end(octets)]
    draft.pieces.clear()
    draft.incoming = incoming
    draft.line = len(octets) - octets.rfind(b"\n") - 1
    return incoming.write(octets)


def stream(draft: Draft, octets: bytes) -> bool:
    """Further content of a message that has gone to a file."""
    assert draft.incoming is not None
    draft.size += len(octets)
    if draft.ascii_only:
        draft.ascii_only = octets.isascii()
    _measure(draft, octets)
    return draft.incoming.write(octets)


def _measure(draft: Draft, octets: bytes) -> None:
    """Whether lines are long. Looks at two places for each thousand octets."""
    if not draft.long_lines:
        draft.long_lines = not message.lines_fit(octets, message.LINE_MAX + 2, draft.line)
        if octets.endswith(b"\n"):
            draft.line = 0
        else:
            last = octets.rfind(b"\n") + 1
            draft.line = len(octets) - last + (0 if last else draft.line)


def on_top(draft: Draft, hostname: str, now_us: int, rules: FieldRules | None = None) -> bytes:
    """All fields that we add: those of rules, Received, then the others. Call it once, after the verdict. FOR names the
    recipient only if there is a single one: others are nobody's business (RFC 5321 §7.6). `rules`: those that the
    listener has for fields; they hold for Received, too."""
    recipients = draft.recipients
    single = recipients[0].address if len(recipients) == 1 else None
    asked = draft.mail.parameters
    received = trace.received(
        draft.peer, by=hostname, queue_id=draft.id, recipient=single, accepted_us=now_us,
        priority=wishes.priority(asked) if asked else 0,
    )
    if rules is not None:
        received, done = rules.applied(received)
        draft.said += done
    if draft.added:
        received += draft.added
    return received if draft.changes is None else draft.changes.top + received


def wanted(draft: Draft) -> tuple[Recipient, ...]:
    """The recipients to be delivered to: each mailbox once, as it was first named, without the discarded."""
    recipients = draft.recipients
    if draft.dropped:
        return ()
    if len(recipients) == 1 and not draft.discarded:
        return (recipients[0],)
    first: dict[Address, Recipient] = {}
    for place, recipient in enumerate(recipients):
        if place not in draft.discarded:
            first.setdefault(recipient.address, recipient)
    return tuple(first.values())


def envelope(
    draft: Draft, recipients: tuple[Recipient, ...], size: int, now_us: int, owns: Owns
) -> Envelope:
    """The envelope of the message as it is stored. `size`: octets of the content as stored. `owns`: whether an account
    may call itself so."""
    mail = draft.mail
    return Envelope(
        draft.id,
        mail.reverse_path,
        recipients,
        size + len(draft.prefix),
        now_us,
        draft.peer,
        draft.body(),
        mail.smtputf8,
        mail.ret,
        mail.envid,
        draft.message_id,
        parameters(mail, draft.peer, owns, (now_us - draft.started_us) // 1_000_000),
        0,
        draft.long_lines,
        draft.prefix,
    )


def parameters(mail: Mail, peer: Peer, owns: Owns, since_s: int) -> tuple[tuple[str, str], ...]:
    """The further parameters of MAIL, which came `since_s` seconds before acceptance: times from MAIL on become times
    from acceptance on. RFC 4954 §5: AUTH= of a client that has not authenticated, or whose account is not trusted to
    speak for that mailbox, counts as ``<>``; an account that may send from any address may speak for any."""
    asked = mail.parameters
    if asked and since_s > 0:
        asked = tuple((keyword, wishes.later(keyword, value, since_s)) for keyword, value in asked)
    if not mail.auth:
        return asked
    submitter = parse_mailbox(mail.auth) if peer.identity and mail.auth != "<>" else None
    believed = submitter is not None and owns(peer.identity, submitter)
    return (*asked, ("AUTH", mail.auth if believed else "<>"))


def accepted(envelope: Envelope, started_us: int) -> Accepted:
    """The event of acceptance."""
    sender = envelope.reverse_path
    return Accepted(
        envelope.accepted_us,
        envelope.id,
        str(sender) if sender is not None else "",
        tuple([recipient.name for recipient in envelope.recipients]),
        envelope.size,
        envelope.message_id,
        envelope.peer,
        envelope.envid,
        0,
        max(0, envelope.accepted_us - started_us),
    )


def refused(reports: Sequence[RecipientReport], accepted: Accepted) -> tuple[Event, ...]:
    """The events of acceptance of a message of which these recipients were refused: they have come to their end."""
    names = tuple([str(each.recipient.address) for each in reports])
    whole = msgspec.structs.replace(accepted, recipients=tuple(dict.fromkeys((*accepted.recipients, *names))))
    ends = [
        Failed(accepted.at_us, accepted.id, (name,), each.attempt.status, each.attempt.text)
        for name, each in zip(names, reports, strict=True)
    ]
    return (whole, *ends)


def removed(draft: Draft, now_us: int) -> tuple[Removed, ...]:
    """The events of recipients that rules let go."""
    recipients = draft.recipients
    if draft.dropped:
        names = tuple(str(recipient.address) for recipient in recipients)
        return (Removed(now_us, draft.id, names, "", draft.dropped),)
    return tuple(
        Removed(now_us, draft.id, (str(recipients[place].address),), "", why)
        for place, why in draft.discarded.items()
    )


@lru_cache(maxsize=64)
def with_type(lmtp: bool, esmtp: bool, tls: bool, identity: bool, smtputf8: bool) -> str:
    """The WITH protocol type of the Received field (RFC 3848, RFC 6531 §4.3)."""
    if not (lmtp or esmtp):
        return "SMTP"
    base = ("UTF8LMTP" if lmtp else "UTF8SMTP") if smtputf8 else ("LMTP" if lmtp else "ESMTP")
    return base + ("S" if tls else "") + ("A" if identity else "")


