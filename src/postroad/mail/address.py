"""The mailbox of an envelope: local-part and domain (RFC 5321 §4.1.2, RFC 6531 §3.3).

What always holds: `local_part` is the *semantic* local-part, unquoted (RFC 5321 §4.1.2: quoting is a way of writing);
`domain` is canonical: lower-case A-labels, so that both forms of a domain (U-labels and A-labels) are equal, or an
address literal such as ``[192.0.2.1]`` or ``[IPv6:2001:db8::1]``, or "" for the bare ``<Postmaster>`` (RFC 5321
§4.1.1.3). The null reverse-path ``<>`` is None, not an Address. Not here: how an address is read (`protocol.grammar`);
this room only writes it.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import Final

import idna
import msgspec

# RFC 5321 §4.1.2: Dot-string = Atom *("." Atom), with RFC 6531 §3.3: atext =/ UTF8-non-ascii
_DOT_STRING: Final = re.compile(r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~\u0080-\U0010ffff]+"
                                r"(?:\.[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~\u0080-\U0010ffff]+)*")

_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)


class Address(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One mailbox. Two addresses are equal when the local-parts are equal to the octet and the domains are the same."""

    local_part: str
    domain: str

    @property
    def is_ascii(self) -> bool:
        """Whether it can be sent without SMTPUTF8 (the domain always can)."""
        return self.local_part.isascii()

    def __str__(self) -> str:
        """The wire form, the local-part quoted if it must be: ``"a b"@example.org``."""
        return _written(self.local_part, self.domain)

    def readable(self) -> str:
        """For people: the domain in U-labels if that is possible."""
        local_part = str(Address(self.local_part, ""))
        return f"{local_part}@{readable_domain(self.domain)}" if self.domain else local_part


@lru_cache(maxsize=4096)  # a message's events and commands write its few addresses many times in a moment
def _written(local_part: str, domain: str) -> str:
    written = written_local_part(local_part)
    return f"{written}@{domain}" if domain else written


def written_local_part(local_part: str) -> str:
    """The local-part as an address has it: quoted if it must be."""
    return local_part if _DOT_STRING.fullmatch(local_part) else quote(local_part)


def unquoted(written: str) -> str:
    """What a local-part means that may be quoted."""
    if len(written) < 2 or not (written.startswith('"') and written.endswith('"')):
        return written
    return _ESCAPED.sub(r"\1", written[1:-1])


def quote(local_part: str) -> str:
    """A Quoted-string (RFC 5321 §4.1.2)."""
    return '"' + local_part.replace("\\", "\\\\").replace('"', '\\"') + '"'


def path(address: Address | None) -> str:
    """``<a@example.org>``, or ``<>`` for the null reverse-path."""
    return f"<{address}>" if address is not None else "<>"


@lru_cache(maxsize=65536)
def canonical_domain(text: str) -> str:
    """The canonical form of a domain name: A-labels in lower case, without a final dot.

    Raises ValueError if `text` is no domain name (RFC 5321 §4.1.2, RFC 5890 §2.3.2.1) or longer than 255 octets.
    """
    lowered = text.lower().removesuffix(".")
    if lowered.isascii():
        if not _LDH_NAME.fullmatch(lowered) or len(lowered) > 255:
            raise ValueError(f"not a domain name: {text!r}")
        if "xn--" not in lowered:
            return lowered
    try:
        # UTS 46 maps what people type (full-width dots, capitals) to what IDNA 2008 allows.
        encoded = idna.encode(lowered, uts46=True, std3_rules=False).decode("ascii")
    except (idna.IDNAError, UnicodeError) as error:
        raise ValueError(f"not a domain name: {text!r} ({error})") from error
    if len(encoded) > 255:
        raise ValueError(f"domain name longer than 255 octets: {text!r}")
    if encoded.endswith("."):  # another script's full stop
        raise ValueError(f"not a domain name: {text!r}")
    return encoded


# RFC 5321 §4.1.2: sub-domain = Let-dig [Ldh-str]; underscores occur in real host names and harm nobody. Labels of at
# most 63 octets (RFC 1035 §2.3.4).
_LDH_NAME: Final = re.compile(
    r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*"
)


@lru_cache(maxsize=8192)
def is_within(domain: str, above: str) -> bool:
    """Whether a domain is the other, or below it. Both as `canonical_domain` has them."""
    return domain == above or domain.endswith(f".{above}")


def readable_domain(domain: str) -> str:
    """The domain in U-labels for people; the A-labels if they do not decode."""
    if "xn--" not in domain:
        return domain
    try:
        return idna.decode(domain)
    except (idna.IDNAError, UnicodeError):
        return domain


def is_ip_address(text: str) -> bool:
    """Whether a host is written as an IPv4 or IPv6 address, without brackets."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_loopback(address: str) -> bool:
    """Whether connecting to this address would lead to this very machine whatever its network is (0.0.0.0 does)."""
    parsed = ipaddress.ip_address(address)
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback or (mapped or parsed).is_unspecified


def is_unusable(address: str) -> bool:
    """Whether no host can have this address: multicast, or reserved by the IETF."""
    parsed = ipaddress.ip_address(address)
    return parsed.is_multicast or (parsed.version == 4 and parsed.is_reserved)
