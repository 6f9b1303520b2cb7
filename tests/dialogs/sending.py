"""Transcripts of the sending side: what we had been told, what our client says of it to a remote, what becomes of it.

A transcript is a text file:

    # what it shows, and where it is from
    ! tls=verify mechanism=PLAIN      settings, see `Setting`; peer.NAME=…: of the client that we have the message from
    G: MAIL FROM:<a@example.org>      this command had brought us the message; another MAIL begins another message
    G: RCPT TO:<b@example.net>        … or XFORWARD
    M: Subject: x                     a line of its content
    m: a\\r\\nb                         octets of its content, Python's escapes
    S: 250 OK                         the remote says this line
    C: EHLO me.test                   our client says this line, exactly
    c: ab\\r\\n\\x00                     our client says these octets
    T:                                TLS starts
    N:                                our client makes another connection
    A: relayed failed:5.1.1           what became of each recipient of a message, the first, then the next; "told": that
                                      we tell its sender of the relaying or delivery

Without G: and M: it is the message of `_USUAL`. Nothing is said beyond the transcript, and nothing sooner: where the
remote speaks, our client has said what stands before that line and no more.

The client is the real one from the opener on: the sans-I/O machine with its courier, the set-up of the session, the
demands of the message (`route.demand`). Only the network differs: octets handed over in memory, whole or one by one
(`MemoryNetwork`), or a socket with real TLS (`SocketNetwork`).
"""

from __future__ import annotations

import asyncio
import base64
import random
import ssl
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import trustme

from postroad.deliver.credentials import Credentials
from postroad.deliver.opener import Opener
from postroad.deliver.options import DeliverOptions
from postroad.mail import wishes
from postroad.mail.attempt import Attempt, Outcome
from postroad.mail.courier import Courier
from postroad.mail.envelope import Envelope, Forwarded, Peer, Recipient
from postroad.mail.job import Job
from postroad.mail.report import DsnAction, wants
from postroad.mail.route import Destination, Hop, Route, TlsDemand, Transport
from postroad.protocol.command import Mail, Rcpt, Xforward
from postroad.protocol.extension import terms
from postroad.protocol.grammar import parse_mail, parse_rcpt
from postroad.protocol.limits import ProtocolLimits
from postroad.protocol.offer import Dialect
from postroad.protocol.xclient import parse_xforward
from postroad.receive.draft import parameters
from postroad.route.demand import refined
from postroad.world.network import SystemNetwork
from postroad.world.programs import SystemPrograms
from postroad.world.tls import ClientTls, ClientTlsOptions
from tests.unit.protocol.host import ALL

PATIENCE_S = 20
NOW_US = 1_700_000_000_000_000
_TERMS = terms(msgspec.structs.replace(ALL, requiretls=True, tls=True), ProtocolLimits(), Dialect.SMTP)
_MAIL = _TERMS.mail | {"BINARYMIME", "SMTPUTF8"}
_RCPT = _TERMS.rcpt | {"SMTPUTF8"}
_USUAL = ("MAIL FROM:<ada@example.org>", "RCPT TO:<r0@example.net>", "RCPT TO:<r1@example.net>")
_CONTENT = b"Subject: x\r\n\r\n.dot\r\n"
_GOOD = (Outcome.RELAYED, Outcome.DELIVERED)

P = TypeVar("P", bound=asyncio.BaseProtocol)


class Setting(msgspec.Struct, frozen=True):
    """Of one transcript. `waited_s`: how long the message has been in the queue. `nonce`: the client's, for SCRAM.
    `credentials`: whether the next hop wants to know who we are; account and all else of it stand beside."""

    transport: str = "smtp"
    tls: str = "may"
    host: str = "localhost"
    port: int = 25
    waited_s: int = 0
    xforward: bool = False
    xclient: bool = False
    mt_priority_tunnel: bool = False
    bdat_size_min: int = 1_048_576
    credentials: bool = False
    name: str = ""
    password: str = ""
    token: str = ""
    mechanism: str = ""
    without_tls: bool = False
    nonce: str = ""


@dataclass
class Told:
    """A message as it had come to us, and what is to become of each of its recipients."""

    mail: Mail
    recipients: list[Recipient] = field(default_factory=list)
    content: bytes = b""
    ends: list[str] = field(default_factory=list)


@dataclass
class Transcript:
    """`connections`: what is said over each, as (kind, text)."""

    setting: Setting = field(default_factory=Setting)
    peer: Peer = field(default_factory=Peer)
    messages: list[Told] = field(default_factory=list)
    connections: list[list[tuple[str, str]]] = field(default_factory=lambda: [[]])

    def said(self, kind: str) -> list[str]:
        return [text for lines in self.connections for each, text in lines if each == kind]

    @property
    def hello(self) -> str:
        """What our client calls itself."""
        return next(text.split()[1] for text in self.said("C:") if text[:4] in ("EHLO", "LHLO"))


def read(path: Path) -> Transcript:
    transcript = Transcript()
    words: dict[str, str] = {}
    ends: list[list[str]] = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        kind, text = line[:2], line[3:]
        if kind == "! ":
            words |= dict(word.split("=", 1) for word in line[2:].split())
        elif kind == "G:":
            _told(transcript, text)
        elif kind in ("M:", "m:"):
            transcript.messages[-1].content += _octets(kind, text)
        elif kind in ("S:", "C:", "c:", "T:"):
            transcript.connections[-1].append((kind, text))
        elif kind == "N:":
            transcript.connections.append([])
        elif kind == "A:":
            ends.append(text.split())
        elif line.strip() and not line.startswith("#"):
            raise ValueError(f"{path.name}:{number}: what is {line!r}?")
    _set(transcript, words)
    if not transcript.messages:
        for text in _USUAL:
            _told(transcript, text)
    for message, end in zip(transcript.messages, ends, strict=True):
        message.ends = end
    return transcript


def _set(transcript: Transcript, words: dict[str, str]) -> None:
    peer = {key.removeprefix("peer."): value for key, value in words.items() if key.startswith("peer.")}
    setting = {key: value for key, value in words.items() if not key.startswith("peer.")}
    assert setting.keys() <= set(Setting.__struct_fields__), setting
    transcript.setting = msgspec.convert(setting, Setting, strict=False)
    forwarded = transcript.peer.forwarded
    transcript.peer = msgspec.structs.replace(msgspec.convert(peer, _PeerWords, strict=False).peer, forwarded=forwarded)


class _PeerWords(msgspec.Struct, frozen=True):
    """Of a Peer, what a transcript sets by words."""

    address: str = ""
    port: int = 0
    hello: str = ""
    protocol: str = ""
    identity: str = ""
    name: str = ""

    @property
    def peer(self) -> Peer:
        return Peer(**msgspec.structs.asdict(self))


def _told(transcript: Transcript, text: str) -> None:
    line = text.encode()
    match text[:4].upper():
        case "MAIL":
            mail = parse_mail(line, _MAIL, ProtocolLimits())
            assert isinstance(mail, Mail), mail
            transcript.messages.append(Told(mail))
        case "RCPT":
            message = transcript.messages[-1]
            rcpt = parse_rcpt(line, _RCPT, ProtocolLimits(), smtputf8=message.mail.smtputf8)
            assert isinstance(rcpt, Rcpt), rcpt
            message.recipients.append(Recipient(rcpt.forward_path, rcpt.notify, rcpt.orcpt, parameters=rcpt.parameters))
        case _:
            facts = parse_xforward(line.partition(b" ")[2])
            assert isinstance(facts, Xforward), facts
            port = int(facts.port or 0)
            told = {key: value or "" for key, value in msgspec.structs.asdict(facts).items() if key != "port"}
            transcript.peer = msgspec.structs.replace(transcript.peer, forwarded=Forwarded(port=port, **told))


def _octets(kind: str, text: str) -> bytes:
    if kind.isupper():
        return text.encode() + b"\r\n"
    return text.encode("latin-1", "backslashreplace").decode("unicode_escape").encode("latin-1")


# ---- the remote


class Remote:
    """Plays the S: lines, a connection after the other; `over`: they have all been played, or one of them in vain."""

    def __init__(self, transcript: Transcript, context: ssl.SSLContext | None) -> None:
        self._transcript = transcript
        self._context = context
        self._connections = iter(transcript.connections)
        self._left = len(transcript.connections)
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def __call__(self, reader: asyncio.StreamReader, writer: Any) -> None:
        try:
            lines = next(self._connections, None)
            assert lines is not None, "one more connection than the transcript has"
            await self._play(lines, reader, writer)
            self._left -= 1
            if not self._left and not self.over.done():
                self.over.set_result(None)
        except Exception as error:
            if not self.over.done():
                self.over.set_exception(error)
        finally:
            writer.close()

    async def _play(self, lines: list[tuple[str, str]], reader: asyncio.StreamReader, writer: Any) -> None:
        for kind, text in lines:
            if kind == "S:":
                await _nothing_more(reader)
                writer.write(text.encode() + b"\r\n")
            elif kind == "T:":
                if self._context is not None:
                    await writer.start_tls(self._context)
            else:
                expected = _octets(kind, text)
                async with asyncio.timeout(PATIENCE_S):
                    came = await (reader.readline() if kind == "C:" else reader.readexactly(len(expected)))
                assert came == expected, f"{came!r}, not {expected!r}"
        async with asyncio.timeout(PATIENCE_S):
            rest = await reader.read()
        assert rest == b"", f"said, and not in the transcript: {rest!r}"


async def _nothing_more(reader: asyncio.StreamReader) -> None:
    """The client has not spoken before it had its answer. Over a socket it may not have come yet; in memory it has."""
    for _ in range(3):
        await asyncio.sleep(0)
    ahead = bytes(reader._buffer)  # type: ignore[attr-defined]
    assert not ahead, f"said too soon: {ahead!r}"


# ---- networks


class MemoryNetwork(SystemNetwork):
    """Connections without sockets: what one end writes is handed to the other. `split`: the remote's octets come to our
    client one by one. TLS changes nothing, so that all else is seen in the plain."""

    def __init__(self, remote: Remote, *, split: bool) -> None:
        super().__init__()
        self._remote = remote
        self._split = split
        self.tasks: list[asyncio.Task[None]] = []

    async def connect(
        self, protocol_factory: Callable[[], P], address: str, port: int, **how: Any
    ) -> tuple[asyncio.Transport, P]:
        protocol = protocol_factory()
        reader = asyncio.StreamReader()
        transport = _Outward(protocol, reader)
        protocol.connection_made(transport)
        writer = _Inward(transport, protocol, split=self._split)
        self.tasks.append(asyncio.create_task(self._remote(reader, writer)))
        return transport, protocol

    async def start_tls(self, transport: asyncio.Transport, *arguments: Any, **how: Any) -> asyncio.Transport:
        return transport


class _Outward(asyncio.Transport):
    """Our client's transport."""

    def __init__(self, protocol: Any, reader: asyncio.StreamReader) -> None:
        super().__init__()
        self._protocol = protocol
        self._reader = reader
        self._closed = False

    def write(self, data: Any) -> None:
        if not self._closed:
            self._reader.feed_data(bytes(data))

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._reader.feed_eof()
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._closed


class _Inward:
    """The remote's writer."""

    def __init__(self, transport: _Outward, protocol: Any, *, split: bool) -> None:
        self._transport = transport
        self._protocol = protocol
        self._split = split

    def write(self, octets: bytes) -> None:
        for part in [octets[at : at + 1] for at in range(len(octets))] if self._split else [octets]:
            if not self._transport.is_closing():
                self._protocol.data_received(part)

    def close(self) -> None:
        self._transport.close()


class SocketNetwork(SystemNetwork):
    """Real connections, whatever the host is called."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port

    async def connect(
        self, protocol_factory: Callable[[], P], address: str, port: int, **how: Any
    ) -> tuple[asyncio.Transport, P]:
        return await super().connect(protocol_factory, "127.0.0.1", self._port, **how)


# ---- our client


class _Chance(random.Random):
    """Octets that make the nonce of an RFC's example."""

    nonce = b""

    def randbytes(self, n: int) -> bytes:
        return self.nonce or super().randbytes(n)


class _Clock:
    def now_us(self) -> int:
        return NOW_US


class Sending:
    """The opener, and one courier at a time."""

    def __init__(
        self, transcript: Transcript, network: SystemNetwork, pool: Executor, directory: Path, ca_file: str
    ) -> None:
        self._transcript = transcript
        setting = transcript.setting
        chance = _Chance()
        chance.nonce = base64.b64decode(setting.nonce)
        options = DeliverOptions(
            connect_s=5,
            handshake_s=5,
            mt_priority_tunnel=setting.mt_priority_tunnel,
            bdat_size_min=setting.bdat_size_min,
        )
        self._opener = Opener(
            name=transcript.hello,
            options=options,
            network=network,
            tls=ClientTls(ClientTlsOptions(ca_file=ca_file)),
            hops=self._hops,
            credentials=lambda name: _credentials(setting, directory),
            programs=SystemPrograms(),
            clock=_Clock(),
            loop=asyncio.get_running_loop(),
            pool=pool,
            entropy=chance,
        )
        self._courier: Any = None

    async def send_all(self) -> None:
        """Each message in its turn, over the connection that there is, or over another one."""
        for place, told in enumerate(self._transcript.messages):
            given = _job(self._transcript, told, place)
            attempts = await self._send(given)
            assert [_end(given.envelope, recipient, attempt) for recipient, attempt in zip(
                given.envelope.recipients, attempts, strict=True
            )] == told.ends  # fmt: skip
        if self._courier is not None:
            self._courier.close()

    async def _send(self, given: Job) -> tuple[Attempt, ...]:
        if self._courier is None or not self._courier.usable:
            if self._courier is not None:
                self._courier.close()
            opened = await self._open(given.destination)
            if isinstance(opened, Attempt):
                self._courier = None
                return (opened,) * len(given.recipients)
            self._courier = opened
        done: asyncio.Future[tuple[Attempt, ...]] = asyncio.get_running_loop().create_future()
        self._courier.carry(given, lambda job, attempts: done.set_result(attempts))
        return await asyncio.wait_for(done, PATIENCE_S)

    async def _open(self, destination: Destination) -> Courier | Attempt:
        opened: asyncio.Future[Courier | Attempt] = asyncio.get_running_loop().create_future()
        self._opener(destination, opened.set_result, lambda courier: None)
        return await asyncio.wait_for(opened, PATIENCE_S)

    async def _hops(self, destination: Destination) -> Route | Attempt:
        setting = self._transcript.setting
        return Route(destination, (Hop(setting.host, "192.0.2.1", setting.port),))


def _credentials(setting: Setting, directory: Path) -> Credentials:
    token_file = ""
    if setting.token:
        file = directory / "token"
        file.write_text(f"{setting.token}\n")
        token_file = str(file)
    return Credentials(setting.name, setting.password, setting.without_tls, setting.mechanism, token_file=token_file)


def _job(transcript: Transcript, told: Told, place: int) -> Job:
    setting, mail = transcript.setting, told.mail
    content = told.content or _CONTENT
    accepted_us = NOW_US - setting.waited_s * 1_000_000
    envelope = Envelope(
        NOW_US + place,
        mail.reverse_path,
        tuple(told.recipients),
        len(content),
        accepted_us,
        transcript.peer,
        body=mail.body,
        smtputf8=mail.smtputf8,
        ret=mail.ret,
        envid=mail.envid,
        parameters=parameters(mail, transcript.peer, lambda name, address: True, 0),
    )
    destination = refined(envelope, told.recipients[0], _destination(setting), None)
    assert isinstance(destination, Destination)
    return Job(envelope, tuple(range(len(told.recipients))), content, destination, envelope.reverse_path)


def _destination(setting: Setting) -> Destination:
    return Destination(
        "example.net",
        Transport(setting.transport),
        tls=TlsDemand(setting.tls),
        xforward=setting.xforward,
        xclient=setting.xclient,
        credentials="set" if setting.credentials else "",
    )


def _end(envelope: Envelope, recipient: Recipient, attempt: Attempt) -> str:
    """As the transcript says it: outcome, status of one that is not good, whether we tell the sender of a good one."""
    action = DsnAction.RELAYED if attempt.outcome is Outcome.RELAYED else DsnAction.DELIVERED
    told = attempt.outcome in _GOOD and (
        wishes.traces_relay(envelope, recipient, attempt)
        or wants(recipient.notify, action, dsn_passed=attempt.dsn_passed)
    )
    status = "" if attempt.outcome in _GOOD else f":{attempt.status}"
    return f"{attempt.outcome.value}{status}{':told' if told else ''}"


async def over_memory(transcript: Transcript, pool: Executor, directory: Path, *, split: bool) -> None:
    remote = Remote(transcript, None)
    network = MemoryNetwork(remote, split=split)
    await _meet(Sending(transcript, network, pool, directory, ""), remote)
    await asyncio.gather(*network.tasks)


async def over_socket(transcript: Transcript, pool: Executor, directory: Path) -> None:
    authority = trustme.CA()
    ca_file = directory / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(transcript.setting.host).configure_cert(context)
    remote = Remote(transcript, context)
    server = await asyncio.start_server(remote, "127.0.0.1", 0)
    network = SocketNetwork(server.sockets[0].getsockname()[1])
    try:
        await _meet(Sending(transcript, network, pool, directory, str(ca_file)), remote)
    finally:
        server.close()


async def _meet(sending: Sending, remote: Remote) -> None:
    """What the remote has to complain of is told first: it is why the sending failed."""
    sent = asyncio.create_task(sending.send_all())
    await asyncio.wait({sent, remote.over}, return_when=asyncio.FIRST_EXCEPTION, timeout=PATIENCE_S)
    if remote.over.done():
        remote.over.result()
    if sent.done():
        sent.result()
    assert sent.done() and remote.over.done(), "the dialog has not come to its end"
