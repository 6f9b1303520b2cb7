"""Counts of sessions."""

from __future__ import annotations

import pytest

from postroad.check.bans import Ban, Bans
from postroad.check.client import BANNED, BanOptions, ClientOptions, Clients, client_of, limit_of
from postroad.mail.envelope import Peer
from postroad.mail.policy import ACCEPT, Question, Rules, Verdict


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
    assert (clients.sessions, clients.admitted) == (3, 3)


def test_clients_that_are_gone_take_no_memory() -> None:
    clients = Clients(ClientOptions())
    for number in range(100):
        clients.admit(f"192.0.2.{number}", False)
    for number in range(100):
        clients.left(f"192.0.2.{number}")
    clients.admit("", False)
    clients.left("")
    assert (clients.sessions, clients.admitted) == (0, 101)
    assert not clients.tally._own


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


def test_a_network_has_its_limit() -> None:
    clients = Clients(ClientOptions(sessions_per_network_max=2))
    assert clients.admit("192.0.2.1", False) is ACCEPT
    assert clients.admit("192.0.2.2", False) is ACCEPT
    refused = clients.admit("192.0.2.3", False)
    assert refused.reason == "too many sessions of network" and refused.disconnect
    assert clients.admit("192.0.3.3", False) is ACCEPT
    assert clients.admit("192.0.2.3", True) is ACCEPT
    assert clients.admit("2001:db8:1:1::1", False) is ACCEPT
    assert clients.admit("2001:db8:1:2::1", False) is ACCEPT
    assert clients.admit("2001:db8:1:3::1", False).reason == "too many sessions of network"
    assert clients.admit("2001:db8:2:3::1", False) is ACCEPT


@pytest.mark.parametrize(("field", "second"), [("connection_rate_max", "192.0.2.1"),
                                               ("connection_rate_network_max", "192.0.2.200")])  # fmt: skip
def test_the_rate_of_connections(field: str, second: str) -> None:
    clients = Clients(ClientOptions(**{field: 2}))
    for _ in range(2):
        assert clients.admit("192.0.2.1", False) is ACCEPT
        clients.left("192.0.2.1")
    refused = clients.admit(second, False)
    assert refused.reply is not None and str(refused.reply).startswith("421 4.7.0") and refused.disconnect
    assert clients.admit("192.0.9.1", False) is ACCEPT
    assert clients.admit("192.0.2.1", True) is ACCEPT


def question(address: str = "192.0.2.1", trusted: bool = False) -> Question:
    return Question(Peer(address), trusted)


@pytest.mark.parametrize(
    ("field", "phase", "second"),
    [
        ("message_rate_max", "mail", "192.0.2.1"),
        ("message_rate_network_max", "mail", "192.0.2.9"),
        ("recipient_rate_max", "rcpt", "192.0.2.1"),
        ("recipient_rate_network_max", "rcpt", "192.0.2.9"),
    ],
)
def test_the_rates_of_messages_and_recipients(field: str, phase: str, second: str) -> None:
    clients = Clients(ClientOptions(**{field: 2}))
    asked: list[Question] = []

    def other(question: Question) -> Verdict:
        asked.append(question)
        return ACCEPT

    rule = getattr(clients.limited(Rules(mail=other, rcpt=other)), phase)
    assert [rule(question()) is ACCEPT for _ in range(2)] == [True, True]
    refused = rule(question(second))
    assert (refused.reply.code, refused.reply.status, refused.disconnect) == (450, "4.7.1", False)
    assert len(asked) == 2  # the rules behind it are not asked any more
    assert rule(question("192.0.9.1")) is ACCEPT
    assert rule(question(trusted=True)) is ACCEPT
    assert rule(question("")) is ACCEPT  # a Unix socket


def test_without_limits_no_rule_is_added() -> None:
    rules = Rules()
    assert Clients(ClientOptions()).limited(rules) == rules


def test_who_is_banned_is_not_let_in() -> None:
    clients = Clients(ClientOptions(), bans=Bans([Ban("192.0.2.0/24", 0, 10), Ban("2001:db8::/64", 0, 0)]))
    assert clients.admit("192.0.2.7", False) is BANNED
    assert clients.admit("2001:db8::7", False) is BANNED
    assert clients.admit("192.0.2.7", True) is ACCEPT
    assert clients.admit("192.0.3.7", False) is ACCEPT
    assert clients.sessions == 2


def test_a_banned_account_is_barred_until_its_ban_ends() -> None:
    now_us = 5
    bans = Bans([Ban("ann", 0, 10, is_account=True), Ban("eve", 0, 0, is_account=True), Ban("192.0.2.0/24", 0, 0)])
    clients = Clients(ClientOptions(), bans=bans, now_us=lambda: now_us)
    assert clients.is_barred("Ann") and clients.is_barred("eve")
    assert not clients.is_barred("bob") and not clients.is_barred("192.0.2.0/24")
    now_us = 10
    assert not clients.is_barred("ann") and clients.is_barred("eve")


def test_the_answer_to_a_wrong_password_is_kept_back_longer_each_time() -> None:
    options = ClientOptions(failure_delay_s=1.0, failure_delay_max_s=10.0)
    clients = Clients(options)
    assert [clients.failed("192.0.2.1", "ann") for _ in range(5)] == [1, 2, 4, 8, 10]
    assert clients.failed("192.0.2.2", "Ann") == 10  # the same account from elsewhere
    assert clients.failed("192.0.2.1", "bob") == 10  # another account from the same client
    assert clients.failed("192.0.2.3", "eve") == 1
    # Who has not said who he is: that is no account whose failures count together.
    assert [clients.failed(f"198.51.100.{number}", "") for number in range(4, 8)] == [1, 1, 1, 1]
    assert clients.failed("", "") == 1


@pytest.mark.parametrize(
    ("key", "limit"),
    [("s", 1), ("s192.0.2.1", 2), ("snet 192.0.2.0/24", 3), ("c192.0.2.1", 4), ("cnet 192.0.2.0/24", 5), ("mx", 6),
     ("mnet x", 7), ("rx", 8), ("rnet x", 9), ("ox", 10), ("fx", 11), ("ax", 12)],
)  # fmt: skip
def test_each_count_has_its_limit(key: str, limit: int) -> None:
    clients = ClientOptions(1, 2, 3, 60.0, 4, 5, 6, 7, 8, 9)
    assert limit_of(key, clients, BanOptions(failures_max=11, account_failures_max=12, offences_max=10)) == limit


# ---- Networks that guess, and clients that have logged in


def test_failures_count_for_the_network_too() -> None:
    clients = Clients(ClientOptions(failure_delay_s=1, failure_delay_max_s=30))
    delays = [clients.failed(f"192.0.2.{number}", "") for number in range(1, 21)]
    assert delays == [1] * 9 + [2] * 5 + [4] * 5 + [8], "each from another one"
    assert clients.failed("198.51.100.1", "") == 1
    delays = [clients.failed(f"2001:db8:0:{number}::1", "") for number in range(1, 16)]
    assert delays == [1] * 9 + [2] * 5 + [4], "each from another /64 of one /48"


def test_the_limits_of_failures() -> None:
    bans = BanOptions(failures_max=7, network_failures_max=70, account_failures_max=9)
    limits = [limit_of(key, ClientOptions(), bans) for key in ("f192.0.2.1", "fnet 192.0.2.0/24", "aann", "l192.0.2.1")]
    assert limits == [7, 70, 9, 1]


@pytest.mark.parametrize(
    ("subject", "by", "stranger", "known"),
    [
        ("192.0.2.0/24", "", True, False),  # by the node, for others of the network
        ("192.0.2.0/24", "root", True, True),
        ("192.0.2.1", "", True, True),
    ],
)
def test_a_ban_of_the_network_spares_who_has_logged_in(subject: str, by: str, stranger: bool, known: bool) -> None:
    bans = Bans([Ban(subject, 0, 0, by=by)])
    assert Clients(ClientOptions(), bans=bans).is_banned("192.0.2.1") is stranger
    clients = Clients(ClientOptions(), bans=bans)
    clients.succeeded("192.0.2.1")
    assert clients.is_banned("192.0.2.1") is known
    clients.succeeded("")


@pytest.mark.parametrize(
    ("bans", "banned"),
    [
        ([Ban("192.0.2.0/24", 0, 0)], False),
        ([Ban("192.0.2.0/24", 0, 0, by="root")], True),
        ([Ban("192.0.2.1", 0, 0)], True),
        ([Ban("192.0.2.0/24", 0, 0), Ban("192.0.2.1", 0, 0)], True),
        ([Ban("192.0.2.0/24", 0, 0), Ban("192.0.0.0/16", 0, 0, by="root")], True),
    ],
)
def test_who_guesses_passwords_does_not_keep_out_the_mail_of_his_neighbours(bans: list[Ban], banned: bool) -> None:
    clients = Clients(ClientOptions(), bans=Bans(bans))
    clients.succeeded("192.0.2.2")
    assert clients.is_banned("192.0.2.2") is (bans[-1].by != "")
    assert (clients.admit("192.0.2.1", False, False) is not ACCEPT) is banned, "where there is no AUTH"
    assert clients.admit("192.0.2.1", False, True) is not ACCEPT


def test_a_client_that_has_logged_in_and_was_banned_itself_is_banned() -> None:
    bans = Bans([Ban("192.0.2.0/24", 0, 0), Ban("192.0.2.1", 0, 0)])
    clients = Clients(ClientOptions(), bans=bans)
    clients.succeeded("192.0.2.1")
    assert clients.is_banned("192.0.2.1")
