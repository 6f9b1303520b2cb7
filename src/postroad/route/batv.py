"""Bounce Address Tag Validation (draft-levine-smtp-batv): our own senders are signed on the way out, so that reports to
them show whether they are about mail that we sent.

    ada@example.org    prvs=KDDDSSSSSS=ada@example.org

K is the number of the key, DDD the day on which the tag ends (the last three digits of the number of days since 1970),
SSSSSS the first three octets of a HMAC-SHA1 in hex, over K, DDD and the address. This is what Exim's ``prvs`` makes of
an address in lower case. What always holds: what is hashed is in lower case, and hashes are compared without regard to
case, so that a host that changes the case does no harm. Pure: the day is given.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from postroad.mail.address import Address

DAY_US: Final = 86_400_000_000
_TAGGED: Final = re.compile(r"prvs=([0-9])([0-9]{3})([0-9a-f]{6})=(.+)", re.IGNORECASE | re.DOTALL | re.ASCII)
_DAYS: Final = 1000  # after so many, DDD begins anew

NumberedKey = tuple[int, bytes]


class Batv(enum.Enum):
    """What is done with the senders of a domain."""

    OFF = "off"
    SIGN = "sign"
    REQUIRE = "require"


class BatvOptions(msgspec.Struct, frozen=True):
    """See the page docs/senders.md."""

    keys_file: Annotated[
        str,
        Meta(
            description="The file of the keys, with `NUMBER KEY` in each line and numbers from 0 to 9. Only the node "
            "should be able to read it. The first key signs, all verify. The file is read again when it changes.",
        ),
    ] = ""
    days: Annotated[
        int, Meta(ge=1, le=365, description="For how many days a report to a signed sender is taken.")
    ] = 7
    plain_to: Annotated[
        tuple[str, ...],
        Meta(
            description="Domains whose mail keeps the plain sender: `lists.example.net`, or `.example.net` for all "
            "domains below it. Mailing lists and greylisting may need that.",
        ),
    ] = ()
    plain_next_hops: Annotated[
        tuple[str, ...],
        Meta(description="Next hops, by their `host`, whose mail keeps the plain sender."),
    ] = ()
    unsigned: Annotated[
        tuple[str, ...],
        Meta(
            description="Mailboxes that also send through other servers, which do not sign. They are never signed, and "
            "`require` does not hold for them.",
        ),
    ] = ()


class Tag(msgspec.Struct, frozen=True):
    """A tagged address. `wrong`: why the tag is not valid, "" if it is."""

    address: Address
    wrong: str = ""


def sign(sender: Address, key: NumberedKey, days: int, now_us: int) -> Address:
    """The sender with a tag that is valid for so many days."""
    return _sign(sender, key, (now_us // DAY_US + days) % _DAYS)


@lru_cache(maxsize=4096)
def _sign(sender: Address, key: NumberedKey, day: int) -> Address:
    head = f"{key[0]}{day:03}"
    return Address(f"prvs={head}{_hash(key[1], head, sender)}={sender.local_part}", sender.domain)


def read(address: Address, keys: Sequence[NumberedKey], days: int, now_us: int) -> Tag | None:
    """The address without its tag; None if it has none."""
    found = _TAGGED.fullmatch(address.local_part)
    if found is None:
        return None
    plain = Address(found[4], address.domain)
    key = next((key for number, key in keys if number == int(found[1])), None)
    head = found[1] + found[2]
    if key is None or not hmac.compare_digest(_hash(key, head, plain), found[3].lower()):
        return Tag(plain, "its tag was not made here")
    left = (int(found[2]) - now_us // DAY_US) % _DAYS
    return Tag(plain) if left <= days else Tag(plain, f"its tag is out of date: it was valid for {days} days")


def is_tagged(local_part: str) -> bool:
    """Whether it is written as one that this scheme makes."""
    return _TAGGED.fullmatch(local_part) is not None


def _hash(key: bytes, head: str, address: Address) -> str:
    text = f"{head}{address.local_part}@{address.domain}"
    return hmac.new(key, text.encode().lower(), hashlib.sha1).hexdigest()[:6]
