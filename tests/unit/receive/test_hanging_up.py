"""Clients that hang up while it is found out who they are: what counts, what is forgotten, what is not even begun; and
how much of it one client, one network and all may have under way."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from postroad.accounts import accounts
from postroad.accounts.accounts import Account
from postroad.accounts.authenticate import Authenticator, AuthOptions, Busy, Outcome, Right, SessionFacts, Tried, Wrong
from postroad.accounts.exchange import OwnMechanisms
from postroad.accounts.function import FunctionSource, LoginQuestion
from postroad.accounts.introspection import Introspection, IntrospectionOptions
from postroad.accounts.places import Places
from postroad.check.client import ClientOptions, Clients
from postroad.mail.event import Authenticated, Refused
from postroad.mail.judging import compose
from postroad.mail.policy import ACCEPT, Rules, Verdict
from postroad.protocol.sasl import clients as sasl
from postroad.world.clock import SystemClock
from postroad.world.http import HttpResponse
from tests.unit.accounts.test_backends import FACTS, backend, fake, house, plain, settled
from tests.unit.receive.fakes import Client, House, opened
from tests.unit.receive.test_auth import PASSWORD, PLAIN, base, house_of, wait

WRONG = "AUTH PLAIN " + base("", "ann", "wrong")


def test_a_client_that_goes_before_a_rule_is_waited_for_leaves_nothing_half_made(
    recwarn: pytest.WarningsRecorder,
) -> None:
    """The task was cancelled before it had begun, and the coroutines of the rules below it were never awaited."""
    asked: list[str] = []

    async def slowly(name: str) -> Verdict:
        asked.append(name)
        await asyncio.sleep(60)
        return ACCEPT

    first = compose((lambda question: slowly("first"), lambda question: ACCEPT))
    assert first is not None
    rules = compose((first, lambda question: slowly("second")))

    async def play() -> None:
        house = House(loop=asyncio.get_running_loop(), rules=Rules(mail=rules))
        client = opened(house)
        client.say("MAIL FROM:<a@b.example>\r\n")
        client.hang_up()
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(play())
    gc.collect()
    assert asked == ["first"]
    assert not [str(each.message) for each in recwarn if "never awaited" in str(each.message)]


class Watched:
    """A house whose authenticator tells what it counts, and how often a hash was computed."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, options: AuthOptions | None = None) -> None:
        self.house: House = house_of(path, options)
        self.hashed: list[str] = []
        self.noted: list[Tried] = []
        self.delayed: list[str] = []
        authenticator = self.house.doors.knowing.authenticator
        assert authenticator is not None
        self.authenticator: Authenticator = authenticator
        authenticator.noted = self.noted.append
        authenticator.delay_s = self.delay
        matches = accounts.matches

        def counted(encoded: str, password: str) -> bool:
            self.hashed.append(password)
            return matches(encoded, password)

        monkeypatch.setattr(accounts, "matches", counted)

    def delay(self, tried: Tried) -> float:
        self.delayed.append(tried.address)
        return 5.0

    def client(self, address: str = "192.0.2.1") -> Client:
        client = self.house.client((address, 50_000))
        client.say("EHLO client.test\r\n")
        return client

    def refused(self) -> list[str]:
        return [event.reason for event in self.house.recorded if isinstance(event, Refused) and event.phase == "AUTH"]


def test_a_wrong_password_counts_though_its_client_has_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(tmp_path, monkeypatch)
    client = watched.client()
    assert client.say(WRONG + "\r\n") == ""
    client.hang_up()
    watched.house.loop.pass_time(0)
    assert watched.noted == [Tried("192.0.2.1", "ann", "PLAIN", False)]
    assert watched.delayed == ["192.0.2.1"] and watched.refused() == ["ann"]
    watched.house.loop.pass_time(10)
    assert len(watched.noted) == len(watched.delayed) == len(watched.refused()) == 1, "once"


def test_one_who_hangs_up_while_the_answer_is_kept_back_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(tmp_path, monkeypatch)
    client = watched.client()
    client.say(WRONG + "\r\n")
    watched.house.loop.pass_time(1)
    assert client.heard() == b"" and watched.refused() == ["ann"], "it is told late, and counted when it is found"
    client.hang_up()
    watched.house.loop.pass_time(10)
    assert len(watched.noted) == len(watched.delayed) == len(watched.refused()) == 1


def test_a_right_password_that_nobody_was_told_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(tmp_path, monkeypatch)
    client = watched.client()
    client.say(PLAIN + "\r\n")
    client.hang_up()
    watched.house.loop.pass_time(10)
    assert watched.hashed == [PASSWORD] and watched.noted == []
    assert not [event for event in watched.house.logged if isinstance(event, Authenticated)]
    again = watched.client()
    assert again.say(PLAIN + "\r\n") == "", "what is remembered is told at once, and would tell that it was right"
    assert wait(again, "") == "235 2.7.0"
    assert watched.hashed == [PASSWORD, PASSWORD]


def test_a_hash_that_has_not_begun_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(tmp_path, monkeypatch, AuthOptions(threads=1))
    first, second, third = (watched.client() for _ in range(3))
    for client in (first, second, third):
        client.say(PLAIN + "\r\n")
    assert len(watched.hashed) == 1, "one thread"
    second.hang_up()
    watched.house.loop.pass_time(0)
    assert first.heard()[:3] == b"235" and third.heard()[:3] == b"235"
    assert len(watched.hashed) == 2, "that of the client that has gone was never begun"
    assert watched.noted == [Tried("192.0.2.1", "ann", "PLAIN", True)] * 2
    assert watched.authenticator.places.taken == 0


def test_no_hash_waits_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(tmp_path, monkeypatch, AuthOptions(threads=1, timeout_s=3))
    monkeypatch.setattr(type(watched.house.loop), "run_in_executor", lambda *about: Never())
    clients = [watched.client() for _ in range(2)]
    for client in clients:
        client.say(PLAIN + "\r\n")
    watched.house.loop.pass_time(4)
    assert clients[1].heard()[:9] == b"454 4.7.0" and clients[0].heard() == b""


class Never:
    """A thread that does not come back."""

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Never called."""


def test_who_hangs_up_instead_of_waiting_finds_its_places_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(tmp_path, monkeypatch, AuthOptions(client_max=3, waiting_max=0))
    for _ in range(3):
        client = watched.client()
        client.say(WRONG + "\r\n")
        client.hang_up()
        watched.house.loop.pass_time(0)
    assert watched.authenticator.places.taken == 0, "nobody else has to wait for that"
    assert watched.client().say(PLAIN + "\r\n")[:9] == "454 4.7.0"
    other = watched.client("192.0.2.2")
    assert wait(other, PLAIN) == "235 2.7.0"
    watched.house.loop.pass_time(5)
    assert wait(watched.client(), PLAIN) == "235 2.7.0", "the answers were due meanwhile"
    assert watched.hashed == ["wrong"] * 3 + [PASSWORD], "the last one was remembered"


def test_the_limit_of_a_session_counts_failures_and_ends_it_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(tmp_path, monkeypatch)
    client = watched.client()
    heard = []
    for _ in range(3):
        client.say(WRONG + "\r\n")
        watched.house.loop.pass_time(5)
        heard.append(client.heard()[:9])
    assert heard == [b"535 5.7.8", b"535 5.7.8", b"421 4.7.0"] and client.transport.closed


# ---- Places


def names_of(address: str) -> tuple[str, str]:
    return address, address.rpartition(".")[0]


def test_places_are_limited_by_client_network_and_in_all() -> None:
    places = Places(AuthOptions(queue_max=16, client_max=2, network_max=3), names_of)
    of_one = [places.admit("192.0.2.1") for _ in range(3)]
    assert [place is not None for place in of_one] == [True, True, False]
    assert places.admit("192.0.2.2") is not None and places.admit("192.0.2.3") is None, "the network is full"
    others = [places.admit(f"198.51.{number}.1") for number in range(12)]
    assert sum(place is not None for place in others) == 9, "16 less a quarter, and three are taken"
    assert of_one[0] is not None
    of_one[0].leave()
    of_one[0].leave()
    assert places.admit("192.0.2.3") is not None, "the place is free, once"
    assert places.admit("192.0.2.3") is None
    assert places.admit("") is not None, "a Unix socket is no stranger"


def test_there_is_room_for_clients_that_have_logged_in() -> None:
    places = Places(AuthOptions(queue_max=16, client_max=2, network_max=3), names_of, "192.0.2.9".__eq__)
    for number in range(3):
        assert places.admit(f"192.0.2.{number}") is not None
    while places.admit(f"203.0.{places.taken}.1") is not None:
        pass
    assert places.taken == 12
    taken = [places.admit("192.0.2.9") for _ in range(5)]
    assert [place is not None for place in taken] == [True] * 4 + [False], "all that there is"
    one = Places(AuthOptions(queue_max=16, client_max=2), names_of, lambda address: True)
    assert [one.admit("192.0.2.9") is not None for _ in range(9)] == [True] * 8 + [False], "half of them for one client"


def test_a_place_whose_work_is_over_counts_for_its_client_only() -> None:
    places = Places(AuthOptions(queue_max=4, client_max=1), names_of)
    first = places.admit("192.0.2.1")
    assert first is not None and places.taken == 1
    first.found()
    assert places.taken == 0 and places.admit("192.0.2.1") is None
    first.leave()
    assert places.taken == 0 and places.admit("192.0.2.1") is not None


def test_nothing_is_kept_for_clients_that_are_gone() -> None:
    places = Places(AuthOptions(queue_max=4), names_of)
    for number in range(100):
        place = places.admit(f"192.0.2.{number}")
        assert place is not None
        place.leave()
    assert places.taken == 0 and not places._counts


# ---- Waiting for a place


def test_forty_right_logins_at_once_from_one_address_all_succeed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An office behind one address, whose clients come back at once after a restart: nobody has logged in lately."""
    watched = Watched(tmp_path, monkeypatch)
    offices = [watched.client() for _ in range(40)]
    for client in offices:
        client.say(PLAIN + "\r\n")
    assert watched.authenticator.places.taken == AuthOptions().client_max, "not more at a time than before"
    watched.house.loop.pass_time(0)
    assert [client.heard()[:9] for client in offices] == [b"235 2.7.0"] * 40
    assert watched.authenticator.places.taken == 0 and not watched.authenticator.places._waits


def test_a_flood_of_wrong_logins_stays_bounded_while_they_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = AuthOptions(client_max=4, waiting_max=16, timeout_s=12)
    watched = Watched(tmp_path, monkeypatch, options)  # an answer to a wrong one takes 5 s
    flood = [watched.client() for _ in range(30)]
    answers = [client.say(WRONG + "\r\n")[:3] for client in flood]
    assert answers == [""] * 8 + ["454"] * 22, "four are worked for, four wait"
    honest = watched.client("198.51.100.7")
    assert wait(honest, PLAIN) == "235 2.7.0", "another client has places of its own"
    watched.house.loop.pass_time(2)  # 4 s have passed
    assert watched.hashed == ["wrong"] * 4 + [PASSWORD], "no faster than answers are due"
    watched.house.loop.pass_time(20)
    assert [client.heard()[:3] for client in flood[:8]] == [b"535"] * 8
    assert watched.hashed == ["wrong"] * 4 + [PASSWORD] + ["wrong"] * 4


def test_who_waits_for_too_long_or_goes_waits_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(tmp_path, monkeypatch, AuthOptions(client_max=1, waiting_max=12, timeout_s=3))
    first, second, third, fourth = (watched.client() for _ in range(4))
    for client in (first, second, third, fourth):
        client.say(WRONG + "\r\n")
    second.hang_up()
    watched.house.loop.pass_time(4)
    assert [client.heard()[:9] for client in (third, fourth)] == [b"454 4.7.0"] * 2 and watched.hashed == ["wrong"]
    assert third.say("NOOP\r\n").startswith("250"), "the session goes on"
    fifth = watched.client()
    fifth.say(PLAIN + "\r\n")
    watched.house.loop.pass_time(2)  # the answer to the first was due
    assert first.heard()[:3] == b"535" and fifth.heard()[:3] == b"235"
    assert not watched.authenticator.places._waiting and not watched.authenticator.places._waits


def test_one_that_goes_when_its_place_has_just_come_leaves_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(tmp_path, monkeypatch, AuthOptions(client_max=1))
    first, second = watched.client(), watched.client()
    first.say(PLAIN + "\r\n")
    second.say(PLAIN + "\r\n")
    first.hang_up()
    loop = watched.house.loop
    while watched.authenticator.places._waiting:  # up to the moment when the second has its place
        loop.turn() or loop.step()
    second.hang_up()
    loop.pass_time(1)
    assert watched.hashed == [PASSWORD] and watched.authenticator.places.taken == 0


def test_a_place_goes_to_the_client_that_has_fewest_then_to_the_first() -> None:
    places = Places(AuthOptions(queue_max=4, client_max=3, network_max=4), names_of)
    held = [places.admit("192.0.2.1"), places.admit("192.0.2.1"), places.admit("198.51.100.1")]
    got: list[str] = []
    for address in ("192.0.2.1", "198.51.100.1", "203.0.113.1", "203.0.113.2"):
        assert places.wait(address, lambda place, address=address: got.append(address)) is not None
    for place in held:
        assert place is not None
        place.leave()
    assert got == ["203.0.113.1", "192.0.2.1", "198.51.100.1"], "the last two have no place more than those behind"


def test_those_who_wait_are_limited_by_client_network_and_in_all() -> None:
    known = "192.0.2.99"
    places = Places(AuthOptions(queue_max=1, waiting_max=16), names_of, known.__eq__)

    def waiting(address: str, most: int = 99) -> int:
        return sum(places.wait(address, lambda place: None) is not None for _ in range(most))

    assert waiting("192.0.2.1") == 4 and waiting("192.0.2.2") == 4
    assert waiting("192.0.2.3") == 0, "the network has its half"
    assert waiting("198.51.100.1") == 4 and waiting("203.0.113.1") == 0, "strangers have three quarters"
    assert waiting(known) == 4, "the rest is for those who have logged in"


async def test_a_login_makes_its_address_known() -> None:
    clients = Clients(ClientOptions())
    auth = function_house(lambda question: question.name if question.password == "secret" else None)
    auth.succeeded = clients.succeeded
    await outcome_of(auth, plain("ada", "no"))
    assert not clients.is_known("192.0.2.1")
    await outcome_of(auth, plain("ada", "secret"))
    assert clients.is_known("192.0.2.1") and not clients.is_known("192.0.2.2")
    auth.close()


# ---- Other backends


def function_house(function: Any, **options: Any) -> Authenticator:
    chosen = AuthOptions(failure_delay_s=0.01, **{"timeout_s": 20, **options})
    loop = asyncio.get_running_loop()
    source = FunctionSource(function, chosen, loop, ThreadPoolExecutor(chosen.threads), b"secret", print)
    return house(OwnMechanisms(source, random.Random(1)), options=chosen)


async def outcome_of(auth: Authenticator, initial: bytes, mechanism: str = "PLAIN") -> Outcome:
    told: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    exchange = auth.exchange(mechanism, FACTS)
    assert exchange is not None
    exchange.begin(initial, told.set_result)
    return await told


def begun(auth: Authenticator, initial: bytes, mechanism: str = "PLAIN", failed: list[str] | None = None) -> Any:
    """An exchange of a client that will go: nothing must be told."""

    def told(outcome: Outcome) -> None:
        raise AssertionError(f"told {outcome} though it has gone")

    exchange = auth.exchange(mechanism, FACTS, (failed if failed is not None else []).append)
    assert exchange is not None
    exchange.begin(initial, told)
    return exchange


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_function_that_was_asked_counts_and_one_that_was_not_is_not_asked(is_async: bool) -> None:
    go, asked, failed, noted = threading.Event(), [], [], []

    def check(question: LoginQuestion) -> None:
        asked.append(question.name)
        go.wait(20)

    async def check_later(question: LoginQuestion) -> None:
        asked.append(question.name)
        while not go.is_set():
            await asyncio.sleep(0.001)

    # An async function is asked at once for as many as there may be; only a plain one has to wait for a thread.
    auth = function_house(check_later if is_async else check, threads=1, queue_max=8)
    auth.noted = noted.append
    first = begun(auth, plain("ann", "x"), failed=failed)
    await settled(lambda: asked == ["ann"])
    second = begun(auth, plain("bob", "x"), failed=failed)
    assert first.cancel() is False, "it has begun"
    await settled(lambda: not is_async or asked == ["ann", "bob"])
    assert second.cancel() is not is_async
    go.set()
    expected = ["ann", "bob"] if is_async else ["ann"]
    await settled(lambda: [tried.name for tried in noted] == expected)
    assert failed == expected and auth.places.taken == 0
    assert await outcome_of(auth, plain("cid", "x")) == Wrong("cid")
    assert asked == [*expected, "cid"]
    auth.close()


async def test_a_token_that_nobody_was_told_of_is_asked_again() -> None:
    go, asked, noted = asyncio.Event(), [], []

    async def fetch(request: Any) -> HttpResponse:
        asked.append(request.body)
        await go.wait()
        right = b"good" in request.body
        return HttpResponse(200, b'{"active": true, "username": "ada"}' if right else b'{"active": false}')

    options, loop = AuthOptions(failure_delay_s=0.01), asyncio.get_running_loop()
    source = Introspection(
        IntrospectionOptions("http://x.test/"), options, loop, SystemClock(), random.Random(1), fetch, print, at_once=1
    )
    auth = house(OwnMechanisms(source, random.Random(1)), options=options)
    auth.noted = noted.append
    good = begun(auth, sasl.xoauth2("ada", "good"), "XOAUTH2")
    await settled(lambda: len(asked) == 1)
    dropped = begun(auth, sasl.xoauth2("ada", "guess"), "XOAUTH2")
    assert dropped.cancel() is True and good.cancel() is False
    go.set()
    await settled(lambda: auth.places.taken == 0)
    assert noted == []
    assert await outcome_of(auth, sasl.xoauth2("ada", "good"), "XOAUTH2") == Right(Account("ada"), "backend 0")
    assert len(asked) == 2, "not remembered"
    go.clear()
    bad = begun(auth, sasl.xoauth2("ada", "bad"), "XOAUTH2")
    await settled(lambda: len(asked) == 3)
    assert bad.cancel() is False
    go.set()
    await settled(lambda: noted[-1:] == [Tried("192.0.2.1", "ada", "XOAUTH2", False)])
    assert auth.places.taken == 0
    auth.close()


async def test_what_dovecot_finds_counts_though_the_client_has_gone(tmp_path: Path) -> None:
    noted: list[Tried] = []
    failed: list[str] = []
    async with fake(tmp_path / "auth") as peer:
        auth = house(backend(tmp_path / "auth", []))
        auth.noted = noted.append
        assert isinstance(await outcome_of(auth, plain("ada", "secret")), Right)
        noted.clear()
        gone = begun(auth, plain("ada", "no"), failed=failed)
        assert gone.cancel() is False
        await settled(lambda: failed == ["ada"])
        assert noted == [Tried("192.0.2.1", "ada", "PLAIN", False)]
        right = begun(auth, plain("ada", "secret"))
        assert right.cancel() is False
        await settled(lambda: auth.places.taken == 0)
        assert len(noted) == 1 and not any(line.startswith("CANCEL") for line in peer.lines)
        auth.close()


async def test_a_full_house_is_told_to_come_back() -> None:
    go = threading.Event()
    auth = function_house(lambda question: go.wait(20) and None, client_max=2, threads=1, waiting_max=0)
    waiting = [asyncio.ensure_future(outcome_of(auth, plain("ann", "x"))) for _ in range(3)]
    await settled(lambda: waiting[2].done())
    assert isinstance(waiting[2].result(), Busy) and not waiting[0].done()
    other = auth.exchange("PLAIN", SessionFacts("192.0.2.77"))
    assert other is not None
    told: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    other.begin(plain("bob", "x"), told.set_result)
    go.set()
    assert await told == Wrong("bob"), "another client has places of its own"
    await asyncio.gather(*waiting)
    auth.close()


def test_an_exchange_that_the_client_gives_up_is_no_failure(tmp_path: Path) -> None:
    """It has not said who it is."""
    client = opened(house_of(tmp_path))
    assert [wait(client, line) for line in ("AUTH PLAIN", "*")] == ["334", "501 5.7.0"]
    assert not [event for event in client.house.recorded if isinstance(event, Refused)]


@pytest.mark.parametrize("where", ["on the thread", "no thread can be started"])
def test_a_verification_that_breaks_is_busy_and_takes_no_place_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    watched = Watched(tmp_path, monkeypatch, AuthOptions(threads=2))

    def broken(*arguments: object) -> bool:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        if where == "on the thread":
            patch.setattr(accounts, "matches", broken)
        else:
            patch.setattr(watched.house.loop, "run_in_executor", broken)
        for _ in range(3):
            client = watched.client()
            assert wait(client, PLAIN) == "454 4.7.0"
            assert client.say("NOOP\r\n").startswith("250"), "the session goes on"
    assert watched.authenticator.places.taken == 0
    assert wait(watched.client(), PLAIN) == "235 2.7.0", "as soon as the machine can again"
