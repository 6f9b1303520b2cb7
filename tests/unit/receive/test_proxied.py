"""Connections behind a PROXY header, over real sockets and both event loops."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

import pytest

from postroad.check.client import ClientOptions
from postroad.mail.envelope import Via
from postroad.mail.event import SessionEnded
from postroad.mail.policy import Role
from postroad.protocol.offer import Dialect
from postroad.protocol.proxy import Header
from postroad.receive import proxied
from postroad.receive.options import ListenerOptions, ListenerTls, Proxy, ReceiveOptions
from postroad.receive.setup import listener_setup
from postroad.world import preface
from tests.unit.protocol.proxying import raw, tls, tlv, v1, v2
from tests.unit.receive.fakes import House
from tests.unit.receive.test_session import content
from tests.unit.receive.test_wire import Run, client_context, gone, read_until, run, serving, until

__all__ = ["run"]

BEHIND = ListenerOptions("front", proxy=Proxy.ANY, proxy_networks=("127.0.0.0/8",))
MAIL = (
    b"EHLO client.test\r\nMAIL FROM:<eve@elsewhere.test>\r\nRCPT TO:<ann@local.test>\r\nDATA\r\n",
    b"Subject: x\r\n\r\nhello\r\n.\r\nQUIT\r\n",
)


def options(**more: Any) -> ReceiveOptions:
    return ReceiveOptions(hostname="mx.local.test", default_domain="local.test", **more)


def reasons(house: House) -> list[str]:
    return [event.reason for event in house.logged if isinstance(event, SessionEnded)]


def send(stream: socket.socket | ssl.SSLSocket) -> None:
    assert read_until(stream, b"\r\n").startswith(b"220")
    stream.sendall(MAIL[0][:18])
    read_until(stream, b"250 ")
    stream.sendall(MAIL[0][18:])
    read_until(stream, b"354 ")
    stream.sendall(MAIL[1])
    assert b"250 2.0.0 Ok: queued" in read_until(stream, b"221 ")


@pytest.mark.parametrize("header", [v1(), v2("192.0.2.7", 51_234, tlv(5, b"id-1"), checked=True)])
@pytest.mark.parametrize("piecemeal", [False, True])
def test_the_client_is_the_one_that_the_header_names(run: Run, header: bytes, piecemeal: bool) -> None:
    async def main() -> None:
        async with serving(BEHIND) as (house, address):

            def client() -> None:
                with socket.create_connection(address) as stream:
                    for part in [header[at : at + 1] for at in range(len(header))] if piecemeal else [header]:
                        stream.sendall(part)
                    send(stream)

            await asyncio.to_thread(client)
            await gone(house)
            peer = house.spool.stored[0].envelope.peer
            assert (peer.address, peer.port) == ("192.0.2.7", 51_234)
            assert peer.via is not None and peer.via.address == "127.0.0.1" and peer.via.port > 0
            assert peer.via.protocol == ("PROXY v1" if header[:1] == b"P" else "PROXY v2")
            assert (peer.via.destination, peer.via.destination_port) == ("198.51.100.1", 25)
            assert b"Received: from client.test ([192.0.2.7])\r\n" in content(house)
            assert house.clients.sessions == 0

    run(main)


def test_tls_follows_the_header(run: Run) -> None:
    """Header and ClientHello in one segment: the handshake gets all of its octets."""

    async def main() -> None:
        listener = ListenerOptions("smtps", tls=ListenerTls.IMPLICIT, proxy=Proxy.V2, proxy_networks=("127.0.0.1",))
        async with serving(listener) as (house, address):

            def client() -> None:
                with socket.create_connection(address) as stream:
                    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
                    shaking = client_context().wrap_bio(incoming, outgoing, server_hostname="mx.local.test")
                    with pytest.raises(ssl.SSLWantReadError):
                        shaking.do_handshake()
                    stream.sendall(v2() + outgoing.read())
                    while True:
                        incoming.write(stream.recv(65_536))
                        try:
                            shaking.do_handshake()
                            break
                        except ssl.SSLWantReadError:
                            continue
                    stream.sendall(outgoing.read())
                    heard = b""
                    while b"220 " not in heard:
                        try:
                            heard += shaking.read()
                        except ssl.SSLWantReadError:
                            incoming.write(stream.recv(65_536))
                    assert b"220 mx.local.test ESMTP" in heard

            await asyncio.to_thread(client)
            await gone(house)
            ended = [event for event in house.logged if isinstance(event, SessionEnded)]
            assert ended[0].peer.address == "192.0.2.7" and ended[0].peer.tls.startswith("TLSv1.3 ")

    run(main)


def test_a_failed_handshake_behind_the_header_is_told(run: Run) -> None:
    async def main() -> None:
        listener = ListenerOptions("smtps", tls=ListenerTls.IMPLICIT, proxy=Proxy.V2, proxy_networks=("127.0.0.1",))
        async with serving(listener) as (house, address):

            def client() -> None:
                with socket.create_connection(address) as stream:
                    stream.sendall(v2() + b"EHLO client.test\r\n")
                    read_until(stream, b"never")

            await asyncio.to_thread(client)
            await until(lambda: bool(reasons(house)))
            assert reasons(house)[0].startswith("TLS handshake failed")

    run(main)


def test_a_unix_socket_of_the_proxys_is_none_of_ours() -> None:
    """Else who reaches a proxy on another machine by a socket there would be trusted as who is on this one."""
    local = Header(2)
    assert proxied.client(local, "192.0.2.9", 50_000, tls_counts=False).end == ("0.0.0.0", 0)
    assert proxied.client(local, "", 0, tls_counts=False).end == ("", 0), "the proxy is on this machine, too"


def test_strangers_are_closed_without_a_word(run: Run) -> None:
    async def main() -> None:
        listener = ListenerOptions("front", proxy=Proxy.ANY, proxy_networks=("192.0.2.0/24", "unix"))
        async with serving(listener) as (house, address):

            def client() -> bytes:
                with socket.create_connection(address) as stream:
                    stream.sendall(v1("127.0.0.1"))
                    try:
                        return read_until(stream, b"\r\n")
                    except ConnectionResetError:
                        return b""

            assert await asyncio.to_thread(client) == b""
            assert reasons(house) == ["not a trusted proxy"]
            assert not house.listener.sessions and not house.clients.sessions

    run(main)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"EHLO client.test\r\n", "no PROXY header of a version that is taken here"),
        (v1()[:-9], "timeout before the end of the PROXY header"),
        (v2(checked=True)[:-1] + b"!", "a PROXY header whose checksum is wrong"),
    ],
)
def test_what_is_no_header_is_closed(run: Run, said: bytes, reason: str) -> None:
    async def main() -> None:
        async with serving(BEHIND, options=options(proxy_s=1.0 if "timeout" in reason else 60)) as (house, address):

            def client() -> bytes:
                with socket.create_connection(address) as stream:
                    stream.sendall(said)
                    try:
                        return read_until(stream, b"\r\n")
                    except ConnectionResetError:
                        return b""

            assert await asyncio.to_thread(client) == b""
            await until(lambda: bool(reasons(house)))
            assert reasons(house) == [reason]

    run(main)


def test_a_probe_that_says_nothing_leaves_no_line(run: Run) -> None:
    async def main() -> None:
        async with serving(BEHIND, options=options(proxy_s=0.1)) as (house, address):

            def client() -> None:
                socket.create_connection(address).close()
                with socket.create_connection(address) as stream:
                    read_until(stream, b"never")

            await asyncio.to_thread(client)
            await asyncio.sleep(0.05)
            assert not house.logged

    run(main)


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", raw(0, b"", command=0)])
def test_local_and_unknown_are_the_proxys_own(run: Run, header: bytes) -> None:
    async def main() -> None:
        async with serving(BEHIND) as (house, address):

            def client() -> None:
                with socket.create_connection(address) as stream:
                    stream.sendall(header)
                    send(stream)

            await asyncio.to_thread(client)
            await gone(house)
            peer = house.spool.stored[0].envelope.peer
            assert peer.address == "127.0.0.1" and peer.via is None

    run(main)


@pytest.mark.parametrize("counts", [True, False])
def test_tls_that_the_proxy_ended(run: Run, counts: bool) -> None:
    async def main() -> None:
        listener = ListenerOptions(
            "front", tls=ListenerTls.REQUIRED, proxy=Proxy.V2, proxy_networks=("127.0.0.1",), proxy_tls=counts
        )
        async with serving(listener) as (house, address):

            def client() -> None:
                header = v2("192.0.2.7", 9, tls(name=b"Ann", client=3), tlv(2, b"mx.local.test"))
                with socket.create_connection(address) as stream:
                    stream.sendall(header)
                    read_until(stream, b"\r\n")
                    stream.sendall(b"EHLO client.test\r\nMAIL FROM:<>\r\n"[:18])
                    heard = read_until(stream, b"250 ")
                    assert (b"STARTTLS" in heard) is not counts
                    stream.sendall(b"MAIL FROM:<>\r\nQUIT\r\n")
                    assert read_until(stream, b"221 ").startswith(b"250" if counts else b"530")

            await asyncio.to_thread(client)
            await gone(house)
            peer = next(event for event in house.logged if isinstance(event, SessionEnded)).peer
            assert peer.tls == ("TLSv1.3 TLS_AES_256_GCM_SHA384" if counts else "")
            assert isinstance(peer.via, Via) and (peer.via.common_name, peer.via.authority) == ("Ann", "mx.local.test")

    run(main)


def test_limits_and_trust_are_those_of_the_client(run: Run) -> None:
    async def main() -> None:
        listener = ListenerOptions(
            "front", Role.RELAY, proxy=Proxy.ANY, proxy_networks=("127.0.0.1",), trusted_networks=("192.0.2.0/24",)
        )
        async with serving(listener, clients=ClientOptions(sessions_per_client_max=1)) as (_, address):

            def client() -> None:
                with socket.create_connection(address) as one, socket.create_connection(address) as two:
                    one.sendall(v1("203.0.113.1", 1))
                    assert read_until(one, b"\r\n").startswith(b"220")
                    two.sendall(v1("203.0.113.1", 2))
                    assert read_until(two, b"\r\n").startswith(b"421")
                for source, code in (("192.0.2.9", b"250"), ("203.0.113.9", b"550")):
                    with socket.create_connection(address) as stream:
                        stream.sendall(v2(source))
                        read_until(stream, b"\r\n")
                        stream.sendall(b"EHLO a.test\r\n")
                        read_until(stream, b"250 ")
                        stream.sendall(b"MAIL FROM:<a@b.test>\r\nRCPT TO:<x@elsewhere.test>\r\nQUIT\r\n")
                        assert b"\r\n" + code in read_until(stream, b"221 ")

            await asyncio.to_thread(client)

    run(main)


def test_who_has_not_ended_the_header_counts_as_a_session(run: Run) -> None:
    async def main() -> None:
        async with serving(BEHIND, clients=ClientOptions(sessions_max=2), options=options(proxy_s=60)) as (
            house, address,
        ):  # fmt: skip

            def client() -> None:
                with socket.create_connection(address) as slow, socket.create_connection(address) as one:
                    slow.sendall(v1()[:10])
                    one.sendall(v1())
                    assert read_until(one, b"\r\n").startswith(b"220")
                    with socket.create_connection(address) as two:
                        assert two.recv(100) == b""
                    slow.sendall(v1()[10:])  # a session takes the place of its header
                    assert read_until(slow, b"\r\n").startswith(b"220")

            await asyncio.to_thread(client)
            await until(lambda: not house.clients.sessions)
            assert reasons(house)[0] == "too many sessions, no PROXY header is waited for"

            def broken() -> None:
                for octets in (b"GET / HTTP/1.0\r\n\r\n", v1()[:10], b""):
                    with socket.create_connection(address) as stream:
                        stream.sendall(octets)

            await asyncio.to_thread(broken)
            await until(lambda: not house.clients.sessions)

            def again() -> None:
                with socket.create_connection(address) as one, socket.create_connection(address) as two:
                    for each in (one, two):
                        each.sendall(v1())
                        assert read_until(each, b"\r\n").startswith(b"220")

            await asyncio.to_thread(again)

    run(main)


def test_lmtp_behind_a_proxy(run: Run) -> None:
    async def main() -> None:
        listener = ListenerOptions(
            "lmtp", Role.RELAY, Dialect.LMTP, proxy=Proxy.V1, proxy_networks=("127.0.0.1",)
        )
        async with serving(listener) as (house, address):

            def client() -> None:
                with socket.create_connection(address) as stream:
                    stream.sendall(v1())
                    assert b" LMTP " in read_until(stream, b"\r\n")
                    stream.sendall(b"LHLO client.test\r\n")
                    read_until(stream, b"250 ")
                    stream.sendall(b"MAIL FROM:<>\r\nRCPT TO:<ann@local.test>\r\nRCPT TO:<bob@local.test>\r\nDATA\r\n")
                    read_until(stream, b"354 ")
                    stream.sendall(b"Subject: x\r\n\r\nhello\r\n.\r\nQUIT\r\n")
                    assert read_until(stream, b"221 ").count(b"250 2.0.0 Ok: queued") == 2

            await asyncio.to_thread(client)
            await gone(house)
            assert house.spool.stored[0].envelope.peer.address == "192.0.2.7"

    run(main)


def test_a_reload_that_brings_the_header_takes_a_new_server(run: Run) -> None:
    async def main() -> None:
        plain = ListenerOptions("front")
        async with serving(plain) as (house, address):
            changed = listener_setup(BEHIND, house.options, house.rules, house.doors)
            assert house.listener.take(changed)
            await house.listener.serve_again()

            def client(header: bytes) -> bytes:
                with socket.create_connection(address) as stream:
                    stream.sendall(header)
                    return read_until(stream, b"\r\n")

            assert (await asyncio.to_thread(client, v1())).startswith(b"220")
            assert (await asyncio.to_thread(client, b"EHLO x\r\n")) == b""
            assert not house.listener.take(changed)

    run(main)


def test_when_too_many_wait_nobody_is_let_in_until_there_is_room(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preface, "WAITING_MAX", 2)

    async def main() -> None:
        async with serving(BEHIND, options=options(proxy_s=60)) as (_, address):

            def client() -> None:
                slow = [socket.create_connection(address) for _ in range(4)]
                with socket.create_connection(address) as stream:
                    stream.sendall(v1())
                    stream.settimeout(0.3)
                    with pytest.raises(TimeoutError):
                        stream.recv(100)
                    for each in slow:
                        each.close()
                    stream.settimeout(20)
                    assert read_until(stream, b"\r\n").startswith(b"220")

            await asyncio.to_thread(client)

    run(main)


def test_who_is_on_the_way_in_is_sent_off_at_shutdown(run: Run) -> None:
    async def main() -> None:
        async with serving(BEHIND) as (house, address):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(v1()[:10])
            await until(lambda: bool(house.listener._server._visits))  # type: ignore[union-attr]
            await house.listener.stop(1)
            writer.write(v1()[10:])
            assert (await reader.readline()).startswith((b"220", b"421"))
            rest = await reader.read()
            assert b"421" in rest or rest == b""
            writer.close()

    run(main)
