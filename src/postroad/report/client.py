"""The client of an event, as the log shows it: its facts for JSON lines, and in words if others spoke for it."""

from __future__ import annotations

import msgspec

from postroad.mail.envelope import Forwarded, Peer, Via
from postroad.mail.tls_details import TlsDetails


class ViaLine(msgspec.Struct):
    protocol: str
    address: str
    port: int
    destination: str
    destination_port: int
    authority: str
    alpn: str
    unique_id: str
    common_name: str


class ForwardedLine(msgspec.Struct):
    name: str
    address: str
    port: int
    protocol: str
    hello: str
    ident: str
    source: str


class TlsLine(msgspec.Struct):
    bits: int
    server_name: str
    subject: str
    issuer: str
    sha256: str
    verified: bool


class ClientLine(msgspec.Struct):
    address: str
    port: int
    hello: str
    protocol: str
    tls: str
    identity: str
    listener: str
    name: str
    via: ViaLine | None
    forwarded: ForwardedLine | None
    tls_details: TlsLine | None


def whereabouts(peer: Peer) -> str:
    """Where the client is, in words: ``[192.0.2.1]:50000``, without a port that nobody has told."""
    if not peer.address:
        return "a Unix socket"
    return f"[{peer.address}]:{peer.port}" if peer.port else f"[{peer.address}]"


def quoted(text: str) -> str:
    """What others chose, in quotes that it cannot leave."""
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def client_line(peer: Peer) -> ClientLine:
    """The object ``client`` of a JSON line."""
    via, forwarded = peer.via, peer.forwarded
    return ClientLine(
        peer.address, peer.port, peer.hello, peer.protocol, peer.tls, peer.identity, peer.listener, peer.name,
        None if via is None else ViaLine(*msgspec.structs.astuple(via)),
        None if forwarded is None else ForwardedLine(*msgspec.structs.astuple(forwarded)),
        tls_line(peer.tls_details),
    )  # fmt: skip


def tls_line(details: TlsDetails | None) -> TlsLine | None:
    """What is known of TLS beside version and cipher."""
    return None if details is None else TlsLine(*msgspec.structs.astuple(details))


def behind(peer: Peer) -> list[str]:
    """What others told of the client, in words; mostly nothing."""
    told = []
    if peer.name:
        told.append(f"named {peer.name}")
    if peer.via is not None:
        told.append(_via(peer.via))
    if peer.forwarded is not None:
        told.append(_forwarded(peer.forwarded))
    return told


def _via(via: Via) -> str:
    end = f" of [{via.address}]:{via.port}" if via.address else ""
    text = f"by {via.protocol}{end}"
    if via.destination:
        text += f" for [{via.destination}]:{via.destination_port}"
    for words, value in (
        ("name asked for", via.authority), ("ALPN", via.alpn), ("certificate of", via.common_name),
        ("unique id", via.unique_id),
    ):  # fmt: skip
        if value:
            text += f", {words} {value}"
    return text


def _forwarded(forwarded: Forwarded) -> str:
    text = "forwarded for"
    if forwarded.address:
        text += f" {forwarded.name}[{forwarded.address}]" + (f":{forwarded.port}" if forwarded.port else "")
    if forwarded.hello or not forwarded.address:
        text += f" {quoted(forwarded.hello)}"
    for words, value in (("", forwarded.protocol), ("id ", forwarded.ident), ("source ", forwarded.source)):
        if value:
            text += f" {words}{value}"
    return text
