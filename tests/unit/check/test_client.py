"""Counts of sessions."""

from __future__ import annotations

import pytest

from postroad.check.client import ClientOptions, Clients, client_of
from postroad.mail.verdict import ACCEPT


def test_one_client_has_its_limit_and_others_have_theirs() -> None:
    clients = Clients(ClientOptions(sessions_max=10, sessions_per_client_max=2))
    assert clients.admit("192.0.2.1", False) is ACCEPT
    assert clients.admit("192.0.2.1", False) is ACCEPT
    refused = clients.admit("192.0.2.1", False)
    assert refused.reply is not None and (refused.reply.code, refused.reply.status) == (421, "4.7.0")
    assert refused.disconnect
    assert clients.admit("192.0.2.2", False) is ACCEPT
    clients.left("192.0.2.1")
    assert clients.admit("192.0.2.1", False) is ACCEPT


def test_the_limit_of_all_holds_for_the_trusted_too() -> None:
    clients = Clients(ClientOptions(sessions_max=3, sessions_per_client_max=1))
    assert [clients.admit("192.0.2.1", True) is ACCEPT for _ in range(4)] == [True, True, True, False]
    assert clients.admit("", True) is not ACCEPT
    assert clients.sessions == 3


def test_clients_that_are_gone_take_no_memory() -> None:
    clients = Clients(ClientOptions())
    for number in range(100):
        clients.admit(f"192.0.2.{number}", False)
    for number in range(100):
        clients.left(f"192.0.2.{number}")
    clients.admit("", False)
    clients.left("")
    assert clients.sessions == 0
    assert not clients._counts


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_what_is_one_client(address: str, client: str) -> None:
    assert client_of(address) == client
