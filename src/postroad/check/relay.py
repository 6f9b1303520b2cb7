"""Relay control: which recipients a client may send to through us (RFC 5321 §3.6.2, §7.9), and whether they exist.

What always holds: no rule made here accepts a recipient of a domain that is neither ours nor one we relay for, unless
the client is authenticated or comes from a trusted network, and the listener lets such clients relay. A recipient that
is unknown at a local domain is refused at RCPT, and so is one to whom mail can never be delivered (`nowhere`). So we
never make a DSN about them (no backscatter). `postmaster` of our own domains, and `postmaster` and `MAILER-DAEMON` of
the node itself, are accepted always, by RFC 5321 §4.5.1: from strangers, too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from postroad.mail.address import Address
from postroad.mail.attempt import Attempt
from postroad.mail.policy import ACCEPT, Action, Question, Rule, Verdict, reject
from postroad.mail.reply import reply
from postroad.maps.face import NotNow

Nowhere = Callable[[Address], Attempt | None]
"""Why no mail can ever come to a mailbox, here or elsewhere, as far as that can be told at once; None if it can."""

Found = bool | NotNow | Attempt
Exists = Callable[[Address], Found | Awaitable[Found]]
"""Whether a mailbox of a local domain exists (also as an alias), or one of a relay domain, as far as we were told.
An awaitable if it must be looked up outside; NotNow if nobody can tell now; an Attempt if there is an alias that leads
to nobody, with the reason."""

LeadsOn = Callable[[Address], bool | NotNow | Awaitable[bool | NotNow]]


Verify = Callable[[Question], Verdict | Awaitable[Verdict]]
"""Asks about a recipient of ours whom nobody but its next hop may know, after all else accepts it."""


def relay_control(
    *,
    is_local: Callable[[str], bool],
    is_relay: Callable[[str], bool],
    known: Exists,
    trust_network: bool,
    trust_identity: bool,
    strangers: bool = True,
    nowhere: Nowhere = lambda address: None,
    is_own: Callable[[Address], bool] = lambda address: False,
    untrusted_routing: bool = False,
    verify: Verify | None = None,
    leads_on: LeadsOn = lambda address: False,
) -> Rule:
    """The rule of SMTP listeners for each recipient. `nowhere`: the client is told at once what can never be delivered,
    or never go out. `is_own`: the mailboxes to which answers to our own mail go. `untrusted_routing`: whether strangers
    may name a way on from a relay domain (`names_a_way`). `leads_on`: whether a recipient of ours who names a way is
    led with it to another host, as an alias for a whole domain does. `verify`: asked last, about recipients of our own
    domains and relay domains that all else accepts; None: there is nothing to ask.

    `trust_network`, `trust_identity`: whether a trusted network and an authenticated account may relay. `strangers`:
    whether others may send to our own domains; if not, only postmaster is open to them.
    """

    def rule(question: Question) -> Verdict | Awaitable[Verdict]:
        recipient = question.recipient
        assert recipient is not None
        ours = (trust_network and question.trusted) or (trust_identity and question.peer.identity != "")
        if is_local(recipient.domain):
            if is_postmaster(recipient):
                return ACCEPT
            if not (ours or strangers):
                return _stranger(recipient)
            found = _existing(recipient, known, nowhere)
            if not (ours or untrusted_routing) and names_a_way(recipient):
                found = _unless_led_on(recipient, found, leads_on)
            return found if verify is None else _verified(question, found, verify)
        if ours:
            stopped = nowhere(recipient)
            return ACCEPT if stopped is None or is_own(recipient) else _unreachable(recipient, stopped)
        if is_own(recipient):
            return ACCEPT
        if strangers and is_relay(recipient.domain):
            if not untrusted_routing and names_a_way(recipient):
                return _routed(recipient)
            if is_postmaster(recipient):
                return ACCEPT
            found = _existing(recipient, known, nowhere)
            return found if verify is None else _verified(question, found, verify)
        return _denied(recipient)

    return rule


def local_only(
    *,
    is_local: Callable[[str], bool],
    known: Exists,
    nowhere: Nowhere = lambda address: None,
    is_own: Callable[[Address], bool] = lambda address: False,
) -> Rule:
    """The rule of LMTP listeners: every recipient is local (RFC 2033 §4.2, §5: no queueing, no relay)."""

    def rule(question: Question) -> Verdict | Awaitable[Verdict]:
        recipient = question.recipient
        assert recipient is not None
        if not is_local(recipient.domain):
            return ACCEPT if is_own(recipient) else _denied(recipient)
        return ACCEPT if is_postmaster(recipient) else _existing(recipient, known, nowhere)

    return rule


def names_a_way(address: Address) -> bool:
    """Whether a local-part names another host to go on to: ``user%other``, ``other!user``, ``"user@other"``. Hosts
    behind us may follow that, so that by way of them a stranger would relay to anywhere (RFC 5321 appendix C, F.2)."""
    local_part = address.local_part
    return "%" in local_part or "!" in local_part or "@" in local_part


def is_postmaster(address: Address) -> bool:
    """RFC 5321 §4.5.1: "postmaster" in any case."""
    return len(address.local_part) == 10 and address.local_part.lower() == "postmaster"


def _verified(
    question: Question, found: Verdict | Awaitable[Verdict], verify: Verify
) -> Verdict | Awaitable[Verdict]:
    if isinstance(found, Verdict):
        return verify(question) if found is ACCEPT else found
    return _awaited_first(question, found, verify)


async def _awaited_first(question: Question, pending: Awaitable[Verdict], verify: Verify) -> Verdict:
    found = await pending
    if found is not ACCEPT:
        return found
    verdict = verify(question)
    return verdict if isinstance(verdict, Verdict) else await verdict


def _existing(recipient: Address, known: Exists, nowhere: Nowhere) -> Verdict | Awaitable[Verdict]:
    answer = known(recipient)
    if answer is True:
        return _reachable(recipient, nowhere)
    if answer is False or isinstance(answer, NotNow | Attempt):
        return _found(recipient, answer, nowhere)
    assert not isinstance(answer, bool)
    return _awaited(recipient, answer, nowhere)


async def _awaited(recipient: Address, answer: Awaitable[Found], nowhere: Nowhere) -> Verdict:
    return _found(recipient, await answer, nowhere)


def _found(recipient: Address, answer: Found, nowhere: Nowhere) -> Verdict:
    if isinstance(answer, NotNow):
        return cannot_look_up(recipient, answer)
    if isinstance(answer, Attempt):
        return _unreachable(recipient, answer)
    return _reachable(recipient, nowhere) if answer else _unknown(recipient)


def cannot_look_up(address: Address, answer: NotNow) -> Verdict:
    """What a client hears of an address about which nobody can tell now."""
    said = reply(451, "4.3.0", f"<{address}>: cannot be looked up now, try again later")
    return Verdict(Action.DEFER, said, answer.text)


def _unless_led_on(
    recipient: Address, found: Verdict | Awaitable[Verdict], leads_on: LeadsOn
) -> Verdict | Awaitable[Verdict]:
    if not isinstance(found, Verdict):
        return _led_on_later(recipient, found, leads_on)
    if found is not ACCEPT:
        return found
    answer = leads_on(recipient)
    return _led_on(recipient, answer) if isinstance(answer, bool | NotNow) else _led_on_awaited(recipient, answer)


async def _led_on_later(recipient: Address, pending: Awaitable[Verdict], leads_on: LeadsOn) -> Verdict:
    verdict = _unless_led_on(recipient, await pending, leads_on)
    return verdict if isinstance(verdict, Verdict) else await verdict


async def _led_on_awaited(recipient: Address, pending: Awaitable[bool | NotNow]) -> Verdict:
    return _led_on(recipient, await pending)


def _led_on(recipient: Address, answer: bool | NotNow) -> Verdict:
    if isinstance(answer, NotNow):
        return cannot_look_up(recipient, answer)
    return _routed(recipient) if answer else ACCEPT


def _reachable(recipient: Address, nowhere: Nowhere) -> Verdict:
    stopped = nowhere(recipient)
    return ACCEPT if stopped is None else _unreachable(recipient, stopped)


def _unknown(recipient: Address) -> Verdict:
    return reject(550, "5.1.1", f"<{recipient}>: no such user here", "unknown recipient")


def _denied(recipient: Address) -> Verdict:
    return reject(550, "5.7.1", f"<{recipient}>: relaying denied", "relaying denied")


def _routed(recipient: Address) -> Verdict:
    text = f"<{recipient}>: strangers may not name a further host to send on to"
    return reject(550, "5.7.1", text, "route through a relay")


def _unreachable(recipient: Address, stopped: Attempt) -> Verdict:
    return reject(550, stopped.status, f"<{recipient}>: {stopped.text}", "no way to the recipient")


def _stranger(recipient: Address) -> Verdict:
    return reject(554, "5.7.1", f"<{recipient}>: this server takes mail from its own networks only", "not trusted")
