"""Transcripts of dialogs with the server machine, read and played without I/O.

A transcript is a text file:

    # what it shows, and where it is from
    ! dialect=lmtp starttls=true auth=PLAIN,LOGIN      settings: fields of Offer and ProtocolLimits
    S: 250 OK                    the server says this line, exactly
    C: EHLO bar.com              the client sends this line with CRLF
    c: ab\\r\\n\\x00                the client sends these octets, Python's escapes, no CRLF
    R: 250 2.1.0 Ok              the receive stack says this for the reply above ("queued": that it is, and as what)
    ~ why                        only for the machine: its host does here what the receive stack never does
    H: Mail ...                  the host was handed this since the last H: line (repr of the command, or its name)
    T:                           TLS has started

Where the machine asks its host for an answer, the next expected reply is given; so the answers of a host are taken
from the transcript and the machine's own ones are compared with it. C: lines without an S: between them are a group
and are fed at once, or octet by octet.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from postroad.mail.reply import Reply
from postroad.protocol import data, grammar, server, xclient
from postroad.protocol.command import (
    Auth,
    AuthResponse,
    Chunk,
    Command,
    Connected,
    Content,
    Data,
    Etrn,
    Hello,
    Help,
    Mail,
    Rcpt,
    StartTls,
    Vrfy,
    Xclient,
    Xforward,
)
from postroad.protocol.limits import ProtocolLimits
from postroad.protocol.offer import Dialect, Offer
from postroad.protocol.server import ServerMachine
from postroad.protocol.state import BAD_ORDER

# What the machine says of itself: a host that is asked where the machine should have known is a failure.
_OWN = frozenset(BAD_ORDER.values()) | frozenset(
    value for module in (data, grammar, server, xclient) for value in vars(module).values() if isinstance(value, Reply)
)
_ASKED = (Connected, Hello, Mail, Rcpt, Data, Chunk, Auth, AuthResponse, Vrfy, Help, Etrn, Xclient, Xforward)
_STATUS = re.compile(r"([245]\.\d{1,3}\.\d{1,3}) (.*)")


@dataclass
class Transcript:
    """`lines`: (kind, text) in order. `replies`: all that the server says, each as its lines; `instead`: what the
    receive stack says for some of them. `machine_only`: why this is not for the receive stack, or ""."""

    dialect: Dialect = Dialect.SMTP
    offer: Offer = field(default_factory=Offer)
    limits: ProtocolLimits = field(default_factory=ProtocolLimits)
    lines: list[tuple[str, str]] = field(default_factory=list)
    replies: list[list[str]] = field(default_factory=list)
    instead: dict[int, str] = field(default_factory=dict)
    machine_only: str = ""


def read(path: Path) -> Transcript:
    transcript = Transcript()
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        kind, text = line[:2], line[3:]
        if kind == "! " or line.startswith("!"):
            _set(transcript, line[1:].split())
        elif kind in ("S:", "C:", "c:", "H:", "T:"):
            transcript.lines.append((kind, text))
            if kind == "S:":
                _expect(transcript.replies, text)
        elif kind == "R:":
            transcript.instead[len(transcript.replies) - 1] = text
        elif kind == "~ ":
            transcript.machine_only = line[2:]
        elif line.strip() and not line.startswith("#"):
            raise ValueError(f"{path.name}:{number}: what is {line!r}?")
    return transcript


def _set(transcript: Transcript, words: list[str]) -> None:
    for word in words:
        key, _, text = word.partition("=")
        if key == "dialect":
            transcript.dialect = Dialect(text)
        elif key in Offer.__struct_fields__:
            transcript.offer = msgspec.structs.replace(transcript.offer, **{key: _value(key, text)})
        else:
            transcript.limits = msgspec.structs.replace(transcript.limits, **{key: _value(key, text)})


def _value(key: str, text: str) -> Any:
    if key.startswith("auth") and key != "auth_required":
        return tuple(text.split(","))
    if text in ("true", "false"):
        return text == "true"
    return int(text) if text.isdecimal() else text


def _expect(replies: list[list[str]], line: str) -> None:
    if replies and replies[-1][-1][3:4] == "-":
        replies[-1].append(line)
    else:
        replies.append([line])


def under_tls(offer: Offer) -> Offer:
    """What is offered behind STARTTLS."""
    return msgspec.structs.replace(offer, tls=True, auth=offer.auth or offer.auth_after_tls, auth_after_tls=())


def steps(transcript: Transcript) -> Iterator[tuple[str, bytes | str]]:
    """Groups of octets to feed ("C"), and the other lines between them."""
    group = b""
    for kind, text in transcript.lines:
        if kind == "C:":
            group += text.encode() + b"\r\n"
        elif kind == "c:":
            group += text.encode("latin-1", "backslashreplace").decode("unicode_escape").encode("latin-1")
        else:
            if group:
                yield "C", group
                group = b""
            yield kind[0], text
    if group:
        yield "C", group


class Player:
    """Plays one transcript; `split`: every octet by itself."""

    def __init__(self, transcript: Transcript, *, split: bool) -> None:
        self.transcript = transcript
        self.split = split
        self.machine = ServerMachine(transcript.dialect, transcript.offer, transcript.limits)
        self.said: list[str] = []  # by the machine, not yet compared
        self.given = 0  # replies so far
        self.handed: list[Command] = []  # commands since the last H: line
        self.pieces: list[bytes] = []

    def play(self) -> None:
        self._work()
        handed: list[str] = []
        for kind, what in steps(self.transcript):
            if kind == "C":
                assert isinstance(what, bytes)
                assert not self.said, f"said, and not in the transcript: {self.said}"
                for part in [what[at : at + 1] for at in range(len(what))] if self.split else [what]:
                    self.machine.feed(part)
                    self._work()
            elif kind == "S":
                assert self.said, f"expected {what!r}, but nothing was said"
                assert self.said.pop(0) == what
            elif kind == "H":
                assert isinstance(what, str)
                handed.append(what)
            else:
                self.machine.tls_started(under_tls(self.transcript.offer))
        assert not self.said, f"said, and not in the transcript: {self.said}"
        if handed:
            assert [_shown(command, text) for command, text in zip(self.handed, handed, strict=True)] == handed

    def _work(self) -> None:
        while (command := self.machine.next_command()) is not None:
            if isinstance(command, Content):
                self.pieces.append(command.octets)
                if not command.last:
                    continue
                command = Content(b"".join(self.pieces), True)
                self.pieces = []
                self.handed.append(command)
                before = self.machine.state
                while self.machine.state is before and self._waits():
                    self.machine.reply(self._next())
            else:
                self.handed.append(command)
                if isinstance(command, _ASKED):
                    self._answer(command)
            if isinstance(command, StartTls):
                break  # the host reads no further before the handshake
        self._take()

    def _waits(self) -> bool:
        """Whether the machine still wants a reply to the content (LMTP: one per recipient)."""
        return self.machine._pending is not None

    def _take(self) -> None:
        octets = self.machine.take_output()
        lines = octets.decode("utf-8").split("\r\n")
        assert lines.pop() == ""
        self.said += lines
        self.given += sum(line[3:4] != "-" for line in lines)

    def _next(self) -> Reply:
        """The reply that the transcript has in this place."""
        self._take()
        lines = self.transcript.replies[self.given]
        code, found = int(lines[0][:3]), [_STATUS.fullmatch(line[4:]) for line in lines]
        if all(found):
            answer = Reply(code, found[0][1], tuple(one[2] for one in found if one))  # type: ignore[index]
            assert answer not in _OWN, f"the host was asked, and the machine should have said {answer}"
            return answer
        return Reply(code, "", tuple(line[4:] for line in lines))

    def _answer(self, command: Command) -> None:
        answer = self._next()
        machine = self.machine
        if isinstance(command, Auth | AuthResponse) and answer.code == 334:
            machine.challenge(base64.b64decode(answer.lines[0]))
        elif isinstance(command, Auth | AuthResponse) and answer.ok:
            machine.authenticated("somebody", answer, machine.offer)
        elif isinstance(command, Xclient):
            machine.begin_anew(command.login or "", answer, machine.offer)
        elif isinstance(command, Hello):
            machine.reply(Reply(answer.code, answer.status, answer.lines[:1]))  # the machine adds the keywords
        else:
            machine.reply(answer)


def _shown(command: Command, like: str) -> str:
    """As the transcript names it: by the class, or in full."""
    return repr(command) if "(" in like else type(command).__name__
