"""Reads the lines of a request that a user of this machine sends to the node (`sendmail.places` describes them).

The same lines come over the socket and stand on top of a file in the drop folder. They are only wishes of this user;
nothing in them is taken as a fact. Pure: octets in; a value, or a text that says what is wrong, out.
"""

from __future__ import annotations

from typing import Final

import msgspec

from postroad.mail import verp
from postroad.mail.envelope import Body, Notify, Ret
from postroad.protocol.grammar import parse_notify
from postroad.sendmail import places

NAME_MAX: Final = 256  # octets of a full name
ENVID_MAX: Final = 100  # RFC 3461 §4.4
_VERBS: Final = (places.SUBMIT, places.SMTP, places.LIST, places.FLUSH, places.VERIFY, places.ALIASES)
_BODIES: Final = {"7BIT": Body.SEVEN_BIT, "8BITMIME": Body.EIGHT_BIT_MIME}
_RETS: Final = {"FULL": Ret.FULL, "HDRS": Ret.HDRS}


class LocalRequest(msgspec.Struct, frozen=True):
    """`sender`: None if the user named none, "" for the null reverse-path. `recipients`: as written, perhaps without a
    domain. `extract`: the header section names (further) recipients. `mail_errors`: the user wants refusals as mail.
    `size`: octets of content that follow. `verp`: the delimiters of a sender of its own for each recipient, "" for
    none."""

    verb: str
    sender: str | None = None
    recipients: tuple[str, ...] = ()
    name: str = ""
    extract: bool = False
    mail_errors: bool = False
    notify: Notify = Notify.UNSET
    ret: Ret = Ret.UNSET
    envid: str = ""
    body: Body = Body.SEVEN_BIT
    size: int = 0
    verp: str = ""


def end(octets: bytes | bytearray) -> int:
    """Where the lines end: the offset behind the empty line, -1 if it is not there yet."""
    at = octets.find(b"\n\n", 0, places.REQUEST_MAX)
    return at + 2 if at >= 0 else -1


def read(octets: bytes) -> LocalRequest | str:
    """The request in these lines, the empty one at their end included, or what is wrong with it."""
    try:
        lines = octets.decode().split("\n")[:-2]
    except UnicodeDecodeError:
        return "the request is not UTF-8"
    verb, _, version = lines[0].partition(" ")
    if version != places.VERSION:
        return f"the node speaks version {places.VERSION}: install sendmail of the node's version"
    if verb not in _VERBS:
        return "there is no such request"
    recipients: list[str] = []
    values: dict[str, str] = {}
    for line in lines[1:]:
        word, _, value = line.partition(" ")
        if any(char < " " or char == "\x7f" for char in value):
            return f"{word} has a control character"
        if word == "to":
            recipients.append(value)
        elif word in values:
            return f"{word} is there twice"
        else:
            values[word] = value
    return _request(verb, tuple(recipients), values)


def _request(verb: str, recipients: tuple[str, ...], values: dict[str, str]) -> LocalRequest | str:
    """Words that are not known are passed over: a newer program may say more."""
    notify = parse_notify(values["notify"]) if "notify" in values else Notify.UNSET
    size = values.get("size", "0")
    envid = values.get("envid", "")
    delimiters = values.get("verp", "")
    if delimiters and verp.fault(delimiters):
        return f"verp: {verp.fault(delimiters)}"
    if notify is None:
        return "notify is not as in RFC 3461"
    if not (size.isascii() and size.isdigit() and len(size) < 19):
        return "size is not a number"
    if len(envid) > ENVID_MAX or not envid.isascii():
        return f"envid has more than {ENVID_MAX} characters, or others than ASCII"
    return LocalRequest(
        verb,
        values.get("from"),
        recipients,
        values.get("name", "")[:NAME_MAX],
        "extract" in values,
        values.get("errors") == "mail",
        notify,
        _RETS.get(values.get("ret", ""), Ret.UNSET),
        envid,
        _BODIES.get(values.get("body", ""), Body.SEVEN_BIT),
        int(size),
        delimiters,
    )
