"""Trace fields: Received and Return-Path, and counting hops (RFC 5321 §4.4, §6.3; RFC 3848; RFC 8314 §4.3).

What always holds: a Received field made here is pure ASCII, so that no next hop needs SMTPUTF8 for it (RFC 6531
§3.7.3); a Return-Path is ASCII if its address is. Lines are folded below 998 octets, and hold no control octets,
whatever name the peer gave.
"""

from __future__ import annotations

import time
from functools import lru_cache

from postroad.mail import identifier
from postroad.mail.address import Address, canonical_domain, path
from postroad.mail.envelope import Peer
from postroad.mail.message import count
from postroad.mail.tls_details import TlsDetails


def received(
    peer: Peer, *, by: str, queue_id: int, recipient: Address | None, accepted_us: int,
    priority: int = 0,
) -> bytes:
    """A Received field with its CRLF (RFC 5321 §4.4).

    `by`: our own name. `recipient`: for the FOR clause, only if the message has a single one (§7.6), else None; one
    that is not ASCII is not named, for the message may well go on without SMTPUTF8, to where an alias leads.
    `priority`: of the message, told if it is not the usual one (RFC 6710: the clause PRIORITY).
    """
    parts = [f"Received: from {_word(peer.hello)}"]  # over a Unix socket there is no TCP-info
    if peer.address:
        literal = f"[IPv6:{peer.address}]" if ":" in peer.address else f"[{peer.address}]"
        parts.append(f" ({_word(peer.name)} {literal})" if peer.name else f" ({literal})")
    parts.append(f"\r\n\tby {by} (Postroad) with {peer.protocol or 'ESMTP'} id {identifier.text(queue_id)}")
    if recipient is not None and recipient.is_ascii:
        parts.append(f"\r\n\tfor {path(recipient)}")
    if priority:
        parts.append(f"\r\n\tPRIORITY {priority}")
    if peer.tls:
        parts.append(_tls(peer.tls, peer.tls_details))
    parts.append(f";\r\n\t{date(accepted_us // 1_000_000)}\r\n")
    return "".join(parts).encode()


def return_path(reverse_path: Address | None) -> bytes:
    """The Return-Path field that final delivery puts on top (RFC 5321 §4.4)."""
    return f"Return-Path: {path(reverse_path)}\r\n".encode()


def delivered_to(address: Address) -> bytes:
    """The Delivered-To field, which says for whom a copy is."""
    return f"Delivered-To: {address}\r\n".encode("utf-8", "replace")


def hops(section: bytes) -> int:
    """How many Received fields a header section holds, for the loop count (RFC 5321 §6.3)."""
    return count(section, b"received")


@lru_cache(maxsize=8)
def date(seconds: int) -> str:
    """A date-time in UTC (RFC 5322 §3.3), such as ``Mon, 23 Nov 2026 12:15:00 +0000``; `seconds` since 1970."""
    moment = time.gmtime(seconds)
    return (
        f"{_DAYS[moment.tm_wday]}, {moment.tm_mday} {_MONTHS[moment.tm_mon - 1]} {moment.tm_year} "
        f"{moment.tm_hour:02}:{moment.tm_min:02}:{moment.tm_sec:02} +0000"
    )


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@lru_cache(maxsize=4096)
def _word(hello: str) -> str:
    """The EHLO argument as one word of at most 255 characters, without those that mean something in the field: a
    semicolon would begin the date (RFC 5321 §4.4)."""
    if not hello.isascii():  # this field is all ASCII: a domain by its A-labels, anything else with "?" in place
        try:
            hello = canonical_domain(hello)
        except ValueError:
            hello = "".join(char if char < "\x80" else "?" for char in hello)
    kept = "".join(char for char in hello if "!" <= char <= "~" and char not in '()<>,;"\\')
    return kept[:255] or "unknown"


@lru_cache(maxsize=256)
def _tls(tls: str, details: TlsDetails | None) -> str:
    """The tls clause (RFC 8314 §4.3, §7.4), which stands behind FOR as all registered clauses do (RFC 5321 §4.4); in
    comments what else is known."""
    version, _, cipher = tls.rpartition(" ")
    known = [version or tls]
    if details is not None:
        known += [f"{details.bits} bits"] if details.bits else []
        if details.server_name:
            known.append(f"SNI {details.server_name}")
    clause = f"\r\n\ttls {_word(cipher)} ({_comment(', '.join(known))})"
    if details is not None and details.sha256:
        verified = "verified" if details.verified else "not verified"
        shown = f"client certificate {details.subject or '-'}, issued by {details.issuer or '-'}, {verified}"
        clause += f"\r\n\t({_comment(shown)})"
    return clause


def _comment(text: str) -> str:
    return "".join(char if " " <= char <= "~" and char not in "()\\" else "?" for char in text)
