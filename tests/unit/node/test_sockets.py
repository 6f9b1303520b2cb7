"""Listening sockets: one per worker, all on one port; what cannot be bound says why."""

from __future__ import annotations

import socket
from pathlib import Path

from postroad.node.sockets import Endpoint, bind, close_all
from postroad.world.problem import Problem
from tests.peers.harness import ports


def test_each_worker_has_its_own_socket_of_one_port() -> None:
    port = ports.port()
    sockets = bind(Endpoint("127.0.0.1", port), 3)
    assert not isinstance(sockets, Problem)
    assert len({sock.fileno() for sock in sockets}) == 3
    assert {sock.getsockname() for sock in sockets} == {("127.0.0.1", port)}
    with socket.create_connection(("127.0.0.1", port), timeout=20):
        pass
    close_all(sockets)


def test_a_port_in_use_is_named_even_where_its_holder_shares_it() -> None:
    port = ports.port()
    held = bind(Endpoint("127.0.0.1", port), 2)
    assert not isinstance(held, Problem)
    refused = bind(Endpoint("127.0.0.1", port), 2)
    assert isinstance(refused, Problem) and f"127.0.0.1:{port}" in str(refused) and "in use" in str(refused)
    close_all(held)


def test_a_unix_socket_is_one_for_all_and_a_stale_one_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "lmtp")
    first = bind(Endpoint(path=path), 2)
    assert not isinstance(first, Problem) and first[0] is first[1]
    again = bind(Endpoint(path=path), 2)
    assert isinstance(again, Problem)
    close_all(first)
    stale = bind(Endpoint(path=path), 1)
    assert not isinstance(stale, Problem)
    close_all(stale)


def test_how_an_endpoint_is_written() -> None:
    assert str(Endpoint("::1", 25)) == "[::1]:25"
    assert str(Endpoint("192.0.2.1", 25)) == "192.0.2.1:25"
    assert str(Endpoint(path="/run/lmtp")) == "unix:/run/lmtp"
