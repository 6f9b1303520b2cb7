"""The Sender Rewriting Scheme: a sender of another domain becomes one of ours when its mail is forwarded, so that SPF
does not fail, and reports come back through us.

    ada@remote.example                              SRS0=HHHH=TT=remote.example=ada@example.org
    SRS0=hhhh=tt=remote.example=ada@other.example   SRS1=HHHH=other.example==hhhh=tt=remote.example=ada@example.org
    SRS1=hhhh=first.example==rest@other.example     SRS1=HHHH=first.example==rest@example.org

HHHH are the first characters of a HMAC-SHA1 in Base64, TT is the day in Base32. With the same key and settings the
addresses are those of postsrsd, in both directions. What always holds: an address that is signed here is found to be
right by each key that is there, whatever has become of its case on the way: what is hashed is in lower case, and hashes
are compared without regard to case. How it fails: an address that is forged, too old or incomplete is a text that says
why. Pure: nothing is read here, and the day is given.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import hmac
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from postroad.mail.address import Address, canonical_domain

DAY_US: Final = 86_400_000_000
_SEPARATORS: Final = "=-+"
_BASE32: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_DAYS: Final = 1024  # after so many, TT begins anew
_HASH_MAX: Final = 27  # characters that a whole hash has
_SHORTEST: Final = 5  # of a tag: "SRS0="


class Separator(enum.Enum):
    """What stands behind SRS0 and SRS1."""

    EQUALS = "="
    MINUS = "-"
    PLUS = "+"


class SrsOptions(msgspec.Struct, frozen=True):
    """See the page docs/senders.md."""

    domain: Annotated[
        str,
        Meta(
            description="The domain of the senders that forwarded mail gets (SRS). Its MX must lead to this node. It "
            "need not be a `[[domain]]`. Unset: forwarded mail keeps its sender.",
        ),
    ] = ""
    keys_file: Annotated[
        str,
        Meta(
            description="The file of the keys, one in each line, which only the node should be able to read. The first "
            "key signs, all verify. The file is read again when it changes. The file of postsrsd serves as it is.",
        ),
    ] = ""
    days_max: Annotated[
        int, Meta(ge=1, le=1000, description="How old an address may be when a reply or a report comes back.")
    ] = 21
    hash_length: Annotated[
        int,
        Meta(ge=4, le=_HASH_MAX, description="How many characters of the hash new addresses have."),
    ] = 4
    hash_length_min: Annotated[
        int,
        Meta(
            ge=4, le=_HASH_MAX,
            description="How many characters of the hash an address must have that comes back.",
        ),
    ] = 4
    separator: Annotated[
        Separator,
        Meta(
            description="The character after `SRS0` in new addresses. Addresses with any of the three are recognised.",
        ),
    ] = Separator.EQUALS
    excluded_domains: Annotated[
        tuple[str, ...],
        Meta(
            description="Further domains whose senders stay as they are: `example.net`, or `.example.net` for all "
            "domains below it.",
        ),
    ] = ()


def forward(sender: Address, options: SrsOptions, key: bytes, now_us: int) -> Address:
    """The sender under which its mail goes on from here."""
    return _forward(sender, options, key, now_us // DAY_US % _DAYS)


@lru_cache(maxsize=4096)
def _forward(sender: Address, options: SrsOptions, key: bytes, day: int) -> Address:
    local_part, separator = sender.local_part, options.separator.value
    kind = _kind(local_part)
    if kind == "SRS1":
        host, _, rest = _split_hash(local_part)[1].partition("=")
        if isinstance(_first(host, rest), Address):
            hashed = _hash(key, options.hash_length, host, rest)
            return Address(f"SRS1{separator}{hashed}={host}={rest}", options.domain)
    if kind == "SRS0" and isinstance(_first(sender.domain, local_part[4:]), Address):
        rest = local_part[4:]
        hashed = _hash(key, options.hash_length, sender.domain, rest)
        return Address(f"SRS1{separator}{hashed}={sender.domain}={rest}", options.domain)
    stamp = _BASE32[day >> 5] + _BASE32[day & 31]
    hashed = _hash(key, options.hash_length, stamp, sender.domain, local_part)
    return Address(f"SRS0{separator}{hashed}={stamp}={sender.domain}={local_part}", options.domain)


def is_srs(local_part: str) -> bool:
    """Whether it is written as one that this scheme makes."""
    return _kind(local_part) != ""


def back(local_part: str, options: SrsOptions, keys: Sequence[bytes], now_us: int) -> Address | str:
    """The sender of before, or why there is none. `is_srs(local_part)`."""
    hashed, rest = _split_hash(local_part)
    return _back_once(hashed, rest, options, keys, now_us) if _kind(local_part) == "SRS0" else _back_twice(
        hashed, rest, options, keys
    )


def _back_once(hashed: str, rest: str, options: SrsOptions, keys: Sequence[bytes], now_us: int) -> Address | str:
    stamp, _, rest = rest.partition("=")
    domain, equals, local_part = rest.partition("=")
    if not (equals and local_part and domain):
        return "the SRS address is not complete"
    if not _is_right(hashed, options, keys, stamp, domain, local_part):
        return "the SRS address was not made here: its hash is wrong"
    day = _day(stamp)
    if day is None:
        return "the SRS address has no valid date"
    age = (now_us // DAY_US - day) % _DAYS
    if age > options.days_max:
        return f"the SRS address is out of date: it was valid for {options.days_max} days"
    return _address(local_part, domain)


def _back_twice(hashed: str, rest: str, options: SrsOptions, keys: Sequence[bytes]) -> Address | str:
    """Its age is for the host to judge that has signed it first."""
    host, _, rest = rest.partition("=")
    found = _first(host, rest)
    if isinstance(found, Address) and not _is_right(hashed, options, keys, host, rest):
        return "the SRS address was not made here: its hash is wrong"
    return found


def _first(host: str, rest: str) -> Address | str:
    """The address at the host that has signed first. `rest`: what stands behind its SRS0, with the separator."""
    if not host or rest[:1] not in _SEPARATORS or len(rest) < 2:
        return "the SRS address is not complete"
    return _address(f"SRS0{rest}", host)


def _address(local_part: str, domain: str) -> Address | str:
    if domain.startswith("["):
        return Address(local_part, domain)
    try:
        return Address(local_part, canonical_domain(domain))
    except ValueError:
        return "the SRS address names no domain"


def _kind(local_part: str) -> str:
    if len(local_part) < _SHORTEST or local_part[4] not in _SEPARATORS:
        return ""
    kind = local_part[:4].upper()
    return kind if kind in ("SRS0", "SRS1") else ""


def _split_hash(local_part: str) -> tuple[str, str]:
    hashed, _, rest = local_part[5:].partition("=")
    return hashed, rest


def _day(stamp: str) -> int | None:
    digits = [_BASE32.find(digit) for digit in stamp.upper()]
    return None if len(digits) != 2 or min(digits) < 0 else digits[0] * 32 + digits[1]


def _hash(key: bytes, length: int, *parts: str) -> str:
    digest = hmac.new(key, "".join(parts).encode().lower(), hashlib.sha1).digest()
    return base64.b64encode(digest)[:length].decode()


def _is_right(hashed: str, options: SrsOptions, keys: Sequence[bytes], *parts: str) -> bool:
    """Compared without regard to case. All keys are tried, so that the time tells nothing."""
    length = len(hashed)
    if not options.hash_length_min <= length <= _HASH_MAX or not hashed.isascii():
        return False
    given, right = hashed.lower(), False
    for key in keys:
        right |= hmac.compare_digest(_hash(key, length, *parts).lower(), given)
    return right
