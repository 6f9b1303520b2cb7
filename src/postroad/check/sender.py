"""Rules about who sends: authentication demanded, the sender's address checked, null reverse-paths, the HELO name."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable

from postroad.accounts.sender_maps import MaySend, Owns
from postroad.mail.address import Address, canonical_domain
from postroad.mail.policy import ACCEPT, Action, Question, Rule, Verdict, reject
from postroad.mail.reply import reply
from postroad.maps.face import NotNow

_AUTHENTICATE = reject(530, "5.7.0", "Authentication required", "not authenticated")
_HELLO = reject(501, "5.5.4", "Say EHLO with a domain name or an address literal", "bad EHLO argument")
_UNSURE = reply(451, "4.3.0", "Nobody can tell now who may use this sender, try again later")
_NULL = reject(550, "5.5.3", "A notification has fewer recipients", "null reverse-path with many recipients")


def authenticated(*, trust_network: bool) -> Rule:
    """RFC 6409 §4.3: an MSA demands authentication (530 5.7.0), or authorises by network where told so."""

    def rule(question: Question) -> Verdict:
        if question.peer.identity or (trust_network and question.trusted):
            return ACCEPT
        return _AUTHENTICATE

    return rule


def sender_owned(owns: Owns) -> Rule:
    """RFC 6409 §6.1: an account sends from addresses that are its own (553 5.7.1 otherwise; 451 4.3.0 if nobody
    can tell now).

    The null reverse-path belongs to nobody and is left alone: user agents send receipts with it (RFC 8098 §3).
    """

    def rule(question: Question) -> Verdict | Awaitable[Verdict]:
        identity, sender = question.peer.identity, question.reverse_path
        if not identity or sender is None:
            return ACCEPT
        found = owns(identity, sender)
        if found is True:
            return ACCEPT
        text = f"<{sender}>: not an address of the account you authenticated as"
        return judged(found, True, reject(553, "5.7.1", text, "sender not owned"))

    return rule


def owned_by_login(has_owner: Callable[[Address], MaySend]) -> Rule:
    """An address that belongs to accounts is for those who have logged in: others are refused (553 5.7.1), unless they
    are in a trusted network. Who has logged in is asked about by `sender_owned`."""

    def rule(question: Question) -> Verdict | Awaitable[Verdict]:
        sender = question.reverse_path
        if sender is None or question.trusted or question.peer.identity:
            return ACCEPT
        text = f"<{sender}>: to send from this address, log in to the account that owns it"
        return judged(has_owner(sender), False, reject(553, "5.7.1", text, "sender of an account, without a login"))

    return rule


def judged(found: MaySend, wanted: bool, refusal: Verdict) -> Verdict | Awaitable[Verdict]:
    """ACCEPT if the answer of a map is the one that is wanted, else the refusal; 451 4.3.0 if it has none now."""
    if isinstance(found, bool):
        return ACCEPT if found is wanted else refusal
    if isinstance(found, NotNow):
        return Verdict(Action.DEFER, _UNSURE, found.text)
    return _judged_later(found, wanted, refusal)


async def _judged_later(found: Awaitable[bool | NotNow], wanted: bool, refusal: Verdict) -> Verdict:
    answer = judged(await found, wanted, refusal)
    assert isinstance(answer, Verdict)
    return answer


def qualified_sender(is_local: Callable[[str], bool]) -> Rule:
    """RFC 6409 §4.2: an MSA sees to it that the domains of the envelope are fully qualified, else 554."""

    def rule(question: Question) -> Verdict:
        sender = question.reverse_path
        if sender is None or _is_qualified(sender.domain) or is_local(sender.domain):
            return ACCEPT
        return _unqualified("5.1.8", sender)

    return rule


def qualified_recipient(is_local: Callable[[str], bool]) -> Rule:
    """The same for recipients: a single label such as "sales" would be somebody's top-level domain elsewhere."""

    def rule(question: Question) -> Verdict:
        recipient = question.recipient
        assert recipient is not None
        if _is_qualified(recipient.domain) or is_local(recipient.domain):
            return ACCEPT
        return _unqualified("5.1.2", recipient)

    return rule


def _is_qualified(domain: str) -> bool:
    return "." in domain or domain.startswith("[")


def _unqualified(status: str, address: Address) -> Verdict:
    return reject(554, status, f"<{address}>: its domain is not fully qualified", "domain not fully qualified")


def null_sender_recipients(recipients_max: int) -> Rule:
    """A notification (reverse-path ``<>``) goes to at most `recipients_max` recipients."""

    def rule(question: Question) -> Verdict:
        if question.reverse_path is None and question.recipients >= recipients_max:
            return _NULL
        return ACCEPT

    return rule


def hello_syntax(question: Question) -> Verdict:
    """RFC 5321 §4.1.1.1: the argument of EHLO is a domain or an address literal. Whether it is true is not asked
    (§4.1.4: "MUST NOT refuse to accept a message on that basis")."""
    name = question.peer.hello
    return ACCEPT if _is_domain(name) or _is_literal(name) else _HELLO


def _is_domain(name: str) -> bool:
    try:
        canonical_domain(name)
    except ValueError:
        return False
    return True


def _is_literal(name: str) -> bool:
    """RFC 5321 §4.1.3: ``[192.0.2.1]``, ``[IPv6:2001:db8::1]``."""
    if not (name.startswith("[") and name.endswith("]")):
        return False
    inner = name[1:-1]
    try:
        if inner[:5].lower() == "ipv6:":
            ipaddress.IPv6Address(inner[5:])
        else:
            ipaddress.IPv4Address(inner)
    except ValueError:
        return False
    return True
