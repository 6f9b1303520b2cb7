"""Whether a mailbox has room for a message, known at RCPT, so that the client hears it and no report is needed.

What a map says of a mailbox (`quota_maps`), as `verdict_of` understands it:

| value | meaning |
|---|---|
| ``over`` or ``full`` | no room |
| a number | so many octets are left |
| ``552 5.2.2 text``, any 4xx or 5xx | this is the reply |
| ``reject text``, ``defer text`` | as check_policy_service of Postfix has it |
| ``dunno``, ``ok``, nothing | there is room |

How it fails: a value that means nothing is room. Pure.
"""

from __future__ import annotations

import re
from typing import Final

from postroad.mail.address import Address
from postroad.mail.policy import Action, Verdict
from postroad.mail.reply import reply

_REPLY: Final = re.compile(r"([45][0-9]{2})(?:[ -]+([45]\.[0-9]{1,3}\.[0-9]{1,3}))?[ -]+(.*)", re.DOTALL)
_DIGITS_MAX: Final = 20
_TEXT_MAX: Final = 300  # characters that the client hears
_FULL: Final = "the mailbox is full"
_ROOM: Final = ("", "ok", "dunno")


def full(address: Address, *, fails: bool) -> Verdict:
    """The verdict about a mailbox without room: for good, or for now."""
    code, status = (552, "5.2.2") if fails else (452, "4.2.2")
    return _verdict(code, status, f"<{address}>: {_FULL}")


def verdict_of(value: str, address: Address, size: int, *, fails: bool) -> Verdict | None:
    """What a value of a map means for a message of this size, 0 if it is not known; None: there is room."""
    text = value.strip()
    word, _, rest = text.partition(" ")
    word = word.lower()
    if word in ("over", "full"):
        return full(address, fails=fails)
    if text.isascii() and text.isdigit() and len(text) < _DIGITS_MAX:
        return full(address, fails=fails) if int(text) <= 0 or size > int(text) else None
    if found := _REPLY.fullmatch(text):
        code = int(found[1])
        status = found[2] or ("5.2.2" if code >= 500 else "4.2.2")
        return _verdict(code, f"{found[1][0]}{status[1:]}", f"<{address}>: {_clean(found[3] or _FULL)}")
    if word == "reject":
        return _verdict(554, "5.7.1", f"<{address}>: {_clean(rest or 'refused')}")
    if word.startswith("defer"):
        return _verdict(452, "4.2.2", f"<{address}>: {_clean(rest or _FULL)}")
    return None


def means_nothing(value: str) -> bool:
    """Whether a value is none of those in the table."""
    word = value.strip().partition(" ")[0].lower()
    known = word in _ROOM or (word.isascii() and word.isdigit())
    return not known and verdict_of(value, Address("x", "x"), 0, fails=True) is None


def _clean(text: str) -> str:
    return "".join(each if each.isascii() and each.isprintable() else "?" for each in text)[:_TEXT_MAX]


def _verdict(code: int, status: str, text: str) -> Verdict:
    action = Action.REJECT if code >= 500 else Action.DEFER
    return Verdict(action, reply(code, status, text), "no room in the mailbox")
