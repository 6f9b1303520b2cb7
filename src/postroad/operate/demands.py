"""What Gmail, Yahoo and Microsoft demand of those who send to their users, point by point. Pure.

The demands are those that the three publish since 2024 and 2025. Most hold for senders of more than 5000 messages a
day, one-click unsubscribe only for mail that people have subscribed to. What one message cannot show (rates of
complaints, how often addresses do not exist) is not here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from postroad.mail.message import count, first
from postroad.trust import results
from postroad.trust.dkim_key import KeyKind
from postroad.trust.dkim_verify import DkimResult
from postroad.trust.dmarc import DmarcVerdict
from postroad.trust.results import Found

GMAIL: Final = "Gmail"
YAHOO: Final = "Yahoo"
MICROSOFT: Final = "Microsoft"
_ALL: Final = (GMAIL, YAHOO, MICROSOFT)
_BITS_WISHED: Final = 2_048
_UNSUBSCRIBE: Final = b"list-unsubscribe"
_POST: Final = b"list-unsubscribe-post"
_HTTPS: Final = re.compile(r"<\s*https://[^<>\s]+>", re.IGNORECASE)
_MESSAGE_ID: Final = re.compile(r"<[^<>@\s]{1,900}@[^<>@\s]{1,900}>")
_TLS: Final = re.compile(r"\bwith\s+(?:UTF8)?E?SMTPSA?\b", re.IGNORECASE)


class Demand(msgspec.Struct, frozen=True):
    """One point. `met`: None if nobody can tell from what is known, or if it does not concern this message."""

    what: str
    by: tuple[str, ...]
    met: bool | None
    told: str


class OutgoingMail(msgspec.Struct, frozen=True):
    """What is known of a message that goes out. `client_known`: whether the address that sends it was told."""

    section: bytes
    client_known: bool
    found: tuple[Found, ...]
    signatures: tuple[DkimResult, ...]
    verdict: DmarcVerdict

    def results_of(self, method: str) -> list[str]:
        return [each.result for each in self.found if each.method == method]


def demands(sent: OutgoingMail) -> tuple[Demand, ...]:
    return (
        _spf(sent), _dkim(sent), _dmarc_record(sent), _alignment(sent), _one_click(sent), _reverse_name(sent),
        _tls(sent), _form(sent),
    )  # fmt: skip


def _spf(sent: OutgoingMail) -> Demand:
    found = [each for each in sent.found if each.method == results.SPF and not _is_helo_beside(each, sent)]
    if not found or found[-1].result == results.TEMPERROR:
        return Demand("SPF passes", _ALL, None, "SPF could not be judged.")
    return Demand("SPF passes", _ALL, found[-1].result == results.PASS, f"SPF: {found[-1].told}.")


def _is_helo_beside(found: Found, sent: OutgoingMail) -> bool:
    """Whether this is SPF of the name in HELO, while there is one of MAIL FROM, too."""
    every = [each for each in sent.found if each.method == results.SPF]
    return len(every) > 1 and bool(found.value("smtp", "helo"))


def _dkim(sent: OutgoingMail) -> Demand:
    passed = [each for each in sent.signatures if each.passes]
    if not passed:
        unknown = any(each.result == results.TEMPERROR for each in sent.signatures)
        return Demand("DKIM passes", _ALL, None if unknown else False, "No DKIM signature passes.")
    short = [each for each in passed if each.key and each.key.kind is KeyKind.RSA and each.bits < _BITS_WISHED]
    told = f"The DKIM signature of {passed[0].domain} passes."
    if short:
        told += f" The key of {short[0].selector} has only {short[0].bits} bits; {_BITS_WISHED} are recommended."
    if all(each.key and each.key.kind is KeyKind.ED25519 for each in passed):
        told += " Not all of the three can read Ed25519: sign with RSA beside it."
    return Demand("DKIM passes", _ALL, True, told)


def _dmarc_record(sent: OutgoingMail) -> Demand:
    judged = sent.verdict.decisive
    what = "the author domain has a DMARC record"
    if judged.record is not None and judged.record.usable:
        return Demand(what, _ALL, True, f"The DMARC record of {judged.policy_domain} applies.")
    met = None if judged.result == results.TEMPERROR else False
    return Demand(what, _ALL, met, judged.told)


def _alignment(sent: OutgoingMail) -> Demand:
    what = "the domain of From is aligned with SPF or DKIM"
    judged = sent.verdict.decisive
    if judged.aligned:
        return Demand(what, _ALL, True, judged.told)
    known = any(not each.value("smtp", "helo") for each in sent.found if each.method == results.SPF)
    if judged.result == results.TEMPERROR or not known:
        return Demand(what, _ALL, None, "No DKIM signature that passes is aligned, and SPF could not be judged.")
    return Demand(what, _ALL, False, judged.told)


def _one_click(sent: OutgoingMail) -> Demand:
    what = "mail that people subscribe to can be unsubscribed with one click (RFC 8058)"
    by = (GMAIL, YAHOO)
    unsubscribe, post = first(sent.section, _UNSUBSCRIBE), first(sent.section, _POST)
    if unsubscribe is None and post is None:
        told = "There is no List-Unsubscribe. For mail to subscribers this is a fault; other mail does not need it."
        return Demand(what, by, None, told)
    faults = list(_one_click_faults(sent, unsubscribe, post))
    told = "; ".join(faults) if faults else "both fields are there, and a DKIM signature that passes covers them"
    return Demand(what, by, not faults, f"{told[0].upper()}{told[1:]}.")


def _one_click_faults(sent: OutgoingMail, unsubscribe: str | None, post: str | None) -> Iterator[str]:
    if unsubscribe is None:
        yield "List-Unsubscribe is missing"
    elif not _HTTPS.search(unsubscribe):
        yield "List-Unsubscribe names no https address"
    if post is None:
        yield "List-Unsubscribe-Post is missing"
    elif "".join(post.split()).lower() != "list-unsubscribe=one-click":
        yield "List-Unsubscribe-Post is not List-Unsubscribe=One-Click"
    signed = [set(each.signature.names) for each in sent.signatures if each.passes and each.signature is not None]
    if not signed:
        yield "no DKIM signature passes, so neither field is signed"
    elif not any({_UNSUBSCRIBE, _POST} <= names for names in signed):
        yield "no DKIM signature that passes has both fields in h="


def _reverse_name(sent: OutgoingMail) -> Demand:
    what = "the address that sends has a name that leads back to it (PTR)"
    by = (GMAIL, YAHOO)
    found = next((each for each in sent.found if each.method == results.IPREV), None)
    if found is None:
        return Demand(what, by, None, "The address that sends is not known (--client).")
    met = None if found.result == results.TEMPERROR else found.result == results.PASS
    return Demand(what, by, met, f"{found.told[0].upper()}{found.told[1:]}.")


def _tls(sent: OutgoingMail) -> Demand:
    what = "the message is sent over TLS"
    received = first(sent.section, b"received")
    if received is not None and _TLS.search(received):
        told = "The top Received field says that the message came over TLS; nothing proves it."
    else:
        told = "A message does not show whether it goes over TLS."
    return Demand(what, (GMAIL,), None, told)


def _form(sent: OutgoingMail) -> Demand:
    what = "one From, one Date and one valid Message-ID (RFC 5322)"
    faults = [
        f"the message has {number} {name} fields" if number else f"the message has no {name} field"
        for name in ("From", "Date", "Message-ID")
        if (number := count(sent.section, name.lower().encode())) != 1
    ]
    written = first(sent.section, b"message-id")
    if written is not None and not _MESSAGE_ID.fullmatch(written.strip()):
        faults.append("the Message-ID has not the form <left@right>")
    told = "; ".join(faults) or "all three are there"
    return Demand(what, (GMAIL, YAHOO), not faults, f"{told[0].upper()}{told[1:]}.")
