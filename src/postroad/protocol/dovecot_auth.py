"""Dovecot's authentication protocol, the client's side, without I/O: lines in, values out, requests as octets.

Lines end with LF, their words are separated by TAB; within a word NUL, LF, CR, TAB and 0x01 are written as 0x01 and a
character (Dovecot's "tab-escaped" strings). https://doc.dovecot.org/latest/developers/design/auth_protocol.html,
version 1.2.

What always holds: nothing that our client sent can end a word or a line: its responses travel as base64, names are
escaped. A request is never longer than `LINE_MAX`, because Dovecot would drop the connection, with the requests of all
clients. Nothing that Dovecot sends raises an exception.

How it fails: with `DovecotBroken`, after which the connection is of no use. Not here: the connection, time
(`accounts.dovecot`).
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

import msgspec

LINE_MAX: Final = 8192  # octets; AUTH_CLIENT_MAX_LINE_LENGTH of Dovecot
INPUT_MAX: Final = 65_536  # of a line of Dovecot's
_MECHANISMS_MAX: Final = 100
_NAME: Final = re.compile(r"[A-Z0-9_-]{1,20}")

_ESCAPES: Final = (("\x01", "\x011"), ("\0", "\x010"), ("\t", "\x01t"), ("\r", "\x01r"), ("\n", "\x01n"))
_UNESCAPED: Final = {"1": "\x01", "0": "\0", "t": "\t", "r": "\r", "n": "\n"}


class DovecotReady(msgspec.Struct, frozen=True):
    """The handshake is done; these mechanisms may be asked for. Those for nobody in particular are not among them."""

    mechanisms: tuple[str, ...]


class Continued(msgspec.Struct, frozen=True):
    """Dovecot wants another response."""

    id: int
    challenge: bytes


class LoginAccepted(msgspec.Struct, frozen=True):
    """The client is `user`."""

    id: int
    user: str


class Denied(msgspec.Struct, frozen=True):
    """It is not; `temporary`: Dovecot could not find out. `user`: who it said it was, if that is known."""

    id: int
    user: str = ""
    temporary: bool = False
    reason: str = ""


class DovecotBroken(msgspec.Struct, frozen=True):
    """Dovecot does not speak as it should."""

    text: str


Event = DovecotReady | Continued | LoginAccepted | Denied | DovecotBroken


class DovecotMachine:
    """One connection."""

    __slots__ = ("_input", "_mechanisms", "_ready")

    def __init__(self) -> None:
        self._input = b""
        self._mechanisms: list[str] = []
        self._ready = False

    def feed(self, octets: bytes) -> None:
        self._input += octets

    def next_event(self) -> Event | None:
        """None: more octets are needed."""
        while True:
            line, found, rest = self._input.partition(b"\n")
            if not found:
                return DovecotBroken("a line without an end") if len(line) > INPUT_MAX else None
            self._input = rest
            event = self._line(line)
            if event is not None:
                return event

    def _line(self, line: bytes) -> Event | None:
        words = [unescape(word) for word in line.decode("utf-8", "replace").split("\t")]
        match words:
            case ["VERSION", major, *_]:
                return None if major == "1" else DovecotBroken(f"version {major[:20]!r} of the protocol")
            case ["MECH", name, *facts]:
                if "anonymous" not in facts and len(self._mechanisms) < _MECHANISMS_MAX and _is_name(name):
                    self._mechanisms.append(name)
                return None
            case ["DONE", *_]:
                self._ready = True
                return DovecotReady(tuple(dict.fromkeys(self._mechanisms)))
            case ["OK" | "CONT" | "FAIL", number, *facts] if number.isascii() and number.isdigit() and self._ready:
                return _answer(words[0], int(number), facts)
            case _:
                return None  # SPID, CUID, COOKIE, and what later versions add


def _answer(kind: str, id: int, facts: list[str]) -> Event:
    parameters = dict(fact.partition("=")[::2] for fact in facts)
    match kind:
        case "OK":
            return (
                LoginAccepted(id, parameters["user"])
                if parameters.get("user")
                else Denied(id, temporary=True, reason="no user=")
            )
        case "CONT":
            try:
                return Continued(id, base64.b64decode(facts[0] if facts else "", validate=True))
            except (binascii.Error, ValueError):
                return Denied(id, temporary=True, reason="a challenge that is not base64")
        case _:
            temporary = "temp" in parameters or parameters.get("code") == "temp_fail"
            return Denied(
                id, parameters.get("user", ""), temporary, parameters.get("reason", "") or parameters.get("code", "")
            )


def _is_name(name: str) -> bool:
    """RFC 4422 §3.1: sasl-mech = 1*20mech-char."""
    return _NAME.fullmatch(name) is not None


def handshake(process: int) -> bytes:
    """The first octets; `process`: a number that no other client of this Dovecot has."""
    return f"VERSION\t1\t2\nCPID\t{process}\n".encode()


def request(id: int, mechanism: str, facts: tuple[tuple[str, str], ...], initial: bytes | None) -> bytes | None:
    """AUTH; None if it would be longer than Dovecot takes. `facts`: parameters, the value "" for those that have
    none. `initial`: None if the client gave no initial response."""
    words = [f"{key}={escape(value)}" if value else key for key, value in facts]
    if initial is not None:
        words.append(f"resp={base64.b64encode(initial).decode('ascii') or '='}")  # the last, by the protocol
    return _bounded("\t".join(("AUTH", str(id), mechanism, *words)))


def response(id: int, octets: bytes) -> bytes | None:
    """CONT; None if it would be longer than Dovecot takes."""
    return _bounded(f"CONT\t{id}\t{base64.b64encode(octets).decode('ascii')}")


def cancel(id: int) -> bytes:
    return f"CANCEL\t{id}\n".encode()


def _bounded(line: str) -> bytes | None:
    octets = line.encode("utf-8", "replace") + b"\n"
    return octets if len(octets) <= LINE_MAX else None


def escape(text: str) -> str:
    for char, written in _ESCAPES:
        text = text.replace(char, written)
    return text


def unescape(text: str) -> str:
    if "\x01" not in text:
        return text
    first, *rest = text.split("\x01")
    out = [first]
    skip = False
    for part in rest:
        if skip:  # the character behind the last 0x01 was 0x01 itself
            out.append(part)
            skip = False
        elif not part:
            skip = True
        else:
            out.append(_UNESCAPED.get(part[0], part[0]) + part[1:])
    return "".join(out)
