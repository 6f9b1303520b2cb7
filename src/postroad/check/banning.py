"""Adds and lifts bans for an operator, in a running node (`node.offices.guard`) or in its file (`cli.bans`).

A subject is an IP address, a network or the name of an account. What always holds: each subject has one row that says
what was done, or why not. A text that looks like an address and is none is refused; it is not taken for an account.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

import msgspec

from postroad.check.bans import Ban, Bans, account_of, network_of

BANNED: Final = "banned"
LIFTED: Final = "lifted"
KEPT: Final = "banned for longer already, which stays (lift it first to shorten it):"
PREFIX_MIN: Final = {4: 8, 6: 16}  # a ban of more of the world is a mistake
_LIKE_AN_ADDRESS: Final = re.compile(r"[0-9.-]+|.*[/:].*")


class BanRequest(msgspec.Struct, frozen=True):
    """An operator's request. `action`: "list", "add" or "lift". `for_s`: how long a new ban lasts, 0 for ever."""

    action: str
    subjects: tuple[str, ...] = ()
    for_s: float = 3600.0
    reason: str = ""
    by: str = ""


class BanResult(msgspec.Struct, frozen=True):
    """What was done for one subject, or why not: then `ban` is None."""

    subject: str
    text: str
    ban: Ban | None = None


def read_request(value: object) -> BanRequest | str:
    """The request in what JSON gave, or what is wrong with it."""
    try:
        asked = msgspec.convert(value, BanRequest)
    except msgspec.ValidationError as error:
        return f"not a request: {error}"
    return fault_of(asked) or asked


def fault_of(asked: BanRequest) -> str:
    """What is wrong with a request; "" for nothing."""
    if asked.action not in ("list", "add", "lift"):
        return f"unknown action {asked.action!r}"
    if not (asked.reason.isprintable() and asked.by.isprintable()):
        return "the reason must be one line of printable characters"
    if not 0 <= asked.for_s <= 10 * 366 * 86_400:
        return "a ban lasts ten years at most, or for ever"
    return ""


def apply(bans: Bans, asked: BanRequest, now_us: int) -> list[BanResult]:
    """Add or lift, in `bans`."""
    work = _add if asked.action == "add" else _lift
    return [work(bans, subject, asked, now_us) for subject in asked.subjects]


def _add(bans: Bans, written: str, asked: BanRequest, now_us: int) -> BanResult:
    subject = subject_of(written)
    if isinstance(subject, str):
        return BanResult(written, subject)
    name, is_account = subject
    until_us = now_us + int(asked.for_s * 1e6) if asked.for_s else 0
    before = bans.of_subject(name, is_account, now_us)
    if before is not None and until_us and not 0 < before.until_us <= until_us:
        return BanResult(name, KEPT, before)
    ban = Ban(name, now_us, until_us, asked.reason, asked.by, is_account)
    bans.add(ban)
    return BanResult(name, BANNED + _widened(written, name), ban)


def _widened(written: str, network: str) -> str:
    """What is to be said if somebody wrote an address with the length of a prefix, and may have meant it alone."""
    address = network_of(written.partition("/")[0])
    if "/" not in network or address == network.partition("/")[0]:
        return ""
    return f" (the whole network of {written})"


def _lift(bans: Bans, written: str, asked: BanRequest, now_us: int) -> BanResult:
    subject = subject_of(written)
    if isinstance(subject, str):
        # An account may have been written in any way by who failed to authenticate, and been banned for it.
        if bans.of_subject(account_of(written), True, now_us) is None:
            return BanResult(written, subject)
        subject = account_of(written), True
    ban = bans.lift(subject[0])
    if ban is not None:
        return BanResult(subject[0], LIFTED, ban)
    wider = None if subject[1] else bans.of_address(subject[0].partition("/")[0], now_us)
    return BanResult(subject[0], "is not banned" if wider is None else f"is banned as a part of {wider.subject}")


def subject_of(written: str) -> tuple[str, bool] | str:
    """The subject and whether it is an account; or what is wrong with it."""
    network = network_of(written)
    if network is not None:
        parsed = ipaddress.ip_network(network)
        if parsed.prefixlen < PREFIX_MIN[parsed.version]:
            return f"is too much of the world: the shortest prefix is /{PREFIX_MIN[parsed.version]}"
        return network, False
    if not written or not written.isprintable() or _LIKE_AN_ADDRESS.fullmatch(written):
        return "is not an address, network or account"
    return account_of(written), True
