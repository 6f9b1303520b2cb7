"""Adds the missing domain to addresses in header fields, in mail of SMTP clients: `From: root`, `To: joe@host`.

As Postfix does by local_header_rewrite_clients and remote_header_rewrite_domain. (Mail of `sendmail` is completed by
`receive.local_head`.) It happens after the content has come and before addresses are rewritten. What always holds: only
a domain is added, all other octets stay; a field that a DKIM or ARC signature covers stays, and so does one whose lines
would become too long. Most mail has nothing to complete: then one search tells it. Pure, linear.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import msgspec

from postroad.mail.envelope import Peer
from postroad.mail.header_clients import HeaderClients, are_meant
from postroad.mail.message import HEADER_MAX, LINE_MAX, header_end, raw_fields
from postroad.protocol.header_addresses import FIELDS, signed
from postroad.protocol.mailboxes import qualified
from postroad.receive.draft import Draft
from postroad.receive.options import ListenerOptions

# A field of addresses of which one might be incomplete: not all its elements are plain addresses with one "@".
_FIELD: Final = rb"^(?:%s)[ \t]*:(?!%s(?:,%s)*(?:\r\n(?![ \t])|\Z))"
_PLAIN: Final = rb'(?:[^"(),:;@\r\n]|\r\n[ \t]|"[^"\\@\r\n]*")*@%s(?:\r\n[ \t][^"(),:;@\r\n]*)*'


def _doubtful(domain: bytes) -> re.Pattern[bytes]:
    names, plain = b"|".join(map(re.escape, FIELDS)), _PLAIN % domain
    return re.compile(_FIELD % (names, plain, plain), re.IGNORECASE | re.MULTILINE)


_DOUBTFUL: Final = _doubtful(rb'[^"(),:;@\r\n]*')
_DOUBTFUL_HOSTS: Final = _doubtful(rb'[^"(),:;@\r\n.]*\.[^"(),:;@\r\n]*')


class Completing(msgspec.Struct, frozen=True):
    """`clients`: whose addresses get `domain`; those of others get `others_domain`, "" for none. `hosts_domain`: what
    comes behind a domain without a dot, "" for nothing."""

    clients: HeaderClients
    domain: str
    others_domain: str
    hosts_domain: str
    is_here: Callable[[Peer], bool]

    def __call__(self, draft: Draft, octets: bytes) -> bytes:
        """The content with its header section completed."""
        doubtful = _DOUBTFUL_HOSTS if self.hosts_domain else _DOUBTFUL
        if doubtful.search(draft.head) is None:
            return octets
        if are_meant(self.clients, draft.peer, self.is_here):
            domain, hosts = self.domain, self.hosts_domain
        else:
            domain, hosts = self.others_domain, self.others_domain if self.hosts_domain else ""
        if not domain:
            return octets
        end = header_end(octets)
        section, names = completed(octets[:end], domain, hosts)
        if not names:
            return octets
        draft.said += (f"a domain was added to addresses in {', '.join(names)}",)
        draft.head = draft.added + section
        return section + octets[end:]


def completed(section: bytes, domain: str, hosts_domain: str = "") -> tuple[bytes, list[str]]:
    """The section with complete addresses, and the names of the fields that have changed."""
    kept = signed(section)
    pieces: list[bytes] = []
    names: dict[str, None] = {}
    at = 0
    for name, _, start, end in raw_fields(section):
        if name not in FIELDS or name in kept:
            continue
        field = section[start:end]
        changed = _field(field, domain, hosts_domain)
        if changed != field:
            pieces += (section[at:start], changed)
            names[name.decode().title()] = None
            at = end
    return b"".join((*pieces, section[at:])), list(names)


def _field(field: bytes, domain: str, hosts_domain: str) -> bytes:
    value = field.decode("utf-8", "surrogateescape")
    changed = qualified(value, domain, hosts_domain=hosts_domain, value_max=HEADER_MAX)
    if changed is value:
        return field
    written = changed.encode("utf-8", "surrogateescape")
    return written if _longest(written) <= max(LINE_MAX, _longest(field)) else field


def _longest(field: bytes) -> int:
    return max(map(len, field.split(b"\r\n")))


def completing(listener: ListenerOptions, is_here: Callable[[Peer], bool]) -> Completing | None:
    """None if the listener completes nothing."""
    if listener.complete_clients is HeaderClients.NONE and not listener.complete_others:
        return None
    if not listener.complete_domain:
        return None
    return Completing(
        listener.complete_clients, listener.complete_domain, listener.complete_others, listener.complete_hosts, is_here
    )
