"""Who looks into AUTH besides the users file: Dovecot's socket, a function, tokens, certificates."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from postroad.accounts import dovecot, introspection
from postroad.accounts.accounts import Account, Accounts
from postroad.accounts.authenticate import (
    Authenticator,
    AuthOptions,
    Backend,
    Busy,
    CertificateName,
    Challenged,
    Exchange,
    Improper,
    Outcome,
    Right,
    SessionFacts,
    Tried,
    Wrong,
)
from postroad.accounts.dovecot import Dovecot
from postroad.accounts.exchange import OwnMechanisms, Source
from postroad.accounts.function import FunctionSource, LoginQuestion, load
from postroad.accounts.introspection import Introspection, IntrospectionOptions
from postroad.accounts.users import Users
from postroad.mail.address import Address
from postroad.protocol.sasl import clients, scram_keys
from postroad.protocol.sasl.clients import Salting, ScramClient
from postroad.protocol.sasl.mechanisms import MECHANISMS
from postroad.protocol.sasl.step import Hash
from postroad.world.clock import SystemClock
from postroad.world.http import fetcher
from postroad.world.network import SystemNetwork
from tests.unit.accounts.test_accounts import HASHER, change

FACTS = SessionFacts("192.0.2.1", 50_000, "192.0.2.2", 587, "client.test", "submission", "TLSv1.3 X")
QUICK = AuthOptions(failure_delay_s=0.01, timeout_s=5)


async def begun(exchange: Exchange | None, initial: bytes | None) -> Outcome:
    assert exchange is not None
    told: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    exchange.begin(initial, told.set_result)
    return bare(await told)


async def responded(exchange: Exchange, response: bytes) -> Outcome:
    told: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    exchange.respond(response, told.set_result)
    return bare(await told)


def bare(outcome: Outcome) -> Outcome:
    """Without the name of the backend, which the house of the test has made up."""
    return Right(outcome.account) if isinstance(outcome, Right) else outcome


def plain(name: str, password: str) -> bytes:
    return f"\0{name}\0{password}".encode()


def house(*backends: Backend, known: Accounts | None = None, options: AuthOptions = QUICK) -> Authenticator:
    named = {f"backend {number}": backend for number, backend in enumerate(backends)}
    return Authenticator(named, known, options, asyncio.get_running_loop(), bindable=True)


# ---- Dovecot


class FakeDovecot:
    """Answers PLAIN: right for the password "secret", temporary for "temp", nothing for "mute"; LOGIN step by step."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.greeting = b"VERSION\t1\t2\nMECH\tPLAIN\nMECH\tLOGIN\nMECH\tSCRAM-SHA-256-PLUS\nDONE\n"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        writer.write(self.greeting)
        with contextlib.suppress(ConnectionError):
            while line := (await reader.readline()).decode().rstrip("\n"):
                self.lines.append(line)
                for answer in self.answers(line.split("\t")):
                    writer.write(answer.encode() + b"\n")

    def answers(self, words: list[str]) -> list[str]:
        match words:
            case ["AUTH", id, "PLAIN", *_, resp]:
                _, name, password = base64.b64decode(resp.removeprefix("resp=")).decode().split("\0")
                return {"secret": [f"OK\t{id}\tuser={name}@example.org"], "temp": [f"FAIL\t{id}\tuser={name}\ttemp"],
                        "mute": []}.get(password, [f"FAIL\t{id}\tuser={name}"])  # fmt: skip
            case ["AUTH", id, "LOGIN", *_]:
                return [f"CONT\t{id}\tVXNlcm5hbWU6"]
            case ["CONT", id, "YWRh"]:
                return [f"CONT\t{id}\tUGFzc3dvcmQ6"]
            case ["CONT", id, _]:
                return [f"OK\t{id}\tuser=ada"]
            case _:
                return []


@contextlib.asynccontextmanager
async def fake(path: Path) -> AsyncIterator[FakeDovecot]:
    peer = FakeDovecot()
    server = await asyncio.start_unix_server(peer.serve, path)
    try:
        yield peer
    finally:
        server.close()
        for writer in peer.writers:
            writer.close()
        path.unlink(missing_ok=True)


def backend(path: Path, said: list[str], options: AuthOptions = QUICK) -> Dovecot:
    return Dovecot(str(path), options, asyncio.get_running_loop(), SystemNetwork(), said.append)


async def settled(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.002)


async def test_dovecot_verifies_and_its_mechanisms_are_offered(tmp_path: Path) -> None:
    async with fake(tmp_path / "auth") as peer:
        known = backend(tmp_path / "auth", [])
        auth = house(known)
        assert await begun(auth.exchange("PLAIN", FACTS), plain("ada", "secret")) == Right(Account("ada@example.org"))
        assert auth.mechanisms(bindable=True) == ("PLAIN", "LOGIN"), "no channel binding through Dovecot"
        assert peer.lines[2] == (
            "AUTH\t1\tPLAIN\tservice=smtp\trip=192.0.2.1\tlip=192.0.2.2\trport=50000\tlport=587\tsecured\t"
            "resp=AGFkYQBzZWNyZXQ="
        )
        assert auth.owns("ada@example.org", Address("ada", "example.org"))
        assert not auth.owns("ada@example.org", Address("eve", "example.org"))
        assert await begun(auth.exchange("PLAIN", FACTS), plain("ada", "no")) == Wrong("ada")
        assert await begun(auth.exchange("PLAIN", FACTS), plain("ada", "temp")) == Busy()
        assert await begun(auth.exchange("PLAIN", FACTS), b"\0" + b"a" * 9_000 + b"\0b") == Improper(dovecot.MALFORMED)
        login = auth.exchange("LOGIN", FACTS)
        assert await begun(login, None) == Challenged(b"Username:")
        assert login is not None
        assert await responded(login, b"ada") == Challenged(b"Password:")
        assert await responded(login, b"x") == Right(Account("ada"))
        auth.close()


@pytest.mark.parametrize(
    ("named", "offered"),
    [
        ((), ("PLAIN", "GSSAPI")),
        (("PLAIN", "CRAM-MD5"), ("PLAIN", "CRAM-MD5")),
        (("DIGEST-MD5",), ("DIGEST-MD5",)),
    ],
)
async def test_md5_is_offered_only_where_it_is_named(
    tmp_path: Path, named: tuple[str, ...], offered: tuple[str, ...]
) -> None:
    async with fake(tmp_path / "auth") as peer:
        peer.greeting = b"VERSION\t1\t2\nMECH\tPLAIN\nMECH\tCRAM-MD5\nMECH\tDIGEST-MD5\nMECH\tGSSAPI\nDONE\n"
        options = AuthOptions(mechanisms=named)
        known = backend(tmp_path / "auth", [], options)
        auth = house(known, options=options)
        await settled(lambda: "CRAM-MD5" in known.mechanisms())
        assert auth.mechanisms(bindable=True) == offered
        auth.close()


def test_we_have_no_mechanism_of_md5_ourselves() -> None:
    assert not any("MD5" in name for name in MECHANISMS)


async def test_dovecot_that_is_away_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dovecot, "RETRY_S", 0.05)
    said: list[str] = []
    known = backend(tmp_path / "auth", said)
    auth = house(known)
    assert auth.mechanisms(bindable=True) == ("PLAIN", "LOGIN"), "clients shall hear 454, not that there is no AUTH"
    assert await begun(auth.exchange("PLAIN", FACTS), plain("ada", "secret")) == Busy()
    async with fake(tmp_path / "auth") as peer:
        await settled(lambda: bool(peer.lines))
        assert isinstance(await begun(auth.exchange("PLAIN", FACTS), plain("ada", "secret")), Right)
        mute = auth.exchange("PLAIN", FACTS)
        waiting = asyncio.ensure_future(begun(mute, plain("ada", "mute")))
        await settled(lambda: any("bXV0ZQ" in line or "AGFkYQBtdXRl" in line for line in peer.lines))
        peer.writers[-1].close()  # a restart of Dovecot in the middle of a request
        assert await waiting == Busy()
        assert isinstance(await begun(auth.exchange("PLAIN", FACTS), plain("ada", "secret")), Right)
    assert "no such file" in said[0] and "is back" in said[1] and "connection was lost" in said[2]
    auth.close()


async def test_dovecot_that_is_silent_or_left(tmp_path: Path) -> None:
    said: list[str] = []
    async with fake(tmp_path / "auth") as peer:
        known = backend(tmp_path / "auth", said, AuthOptions(timeout_s=1.0))
        auth = house(known, options=AuthOptions(timeout_s=1.0))
        assert await begun(auth.exchange("PLAIN", FACTS), plain("ada", "mute")) == Busy()
        assert said == ["Dovecot did not answer within 1 s"]
        gone = auth.exchange("LOGIN", FACTS)
        assert await begun(gone, None) == Challenged(b"Username:")
        assert gone is not None
        gone.cancel()
        await settled(lambda: peer.lines[-1].startswith("CANCEL\t"))
        assert isinstance(await begun(auth.exchange("PLAIN", FACTS), plain("ada", "secret")), Right)
        auth.close()


async def test_dovecot_that_was_started_again_knows_nothing_of_what_was_begun(tmp_path: Path) -> None:
    async with fake(tmp_path / "auth") as peer:
        auth = house(backend(tmp_path / "auth", []))
        login = auth.exchange("LOGIN", FACTS)
        assert await begun(login, None) == Challenged(b"Username:") and login is not None
        peer.writers[-1].close()
        await settled(lambda: peer.writers[-1].is_closing())
        while await begun(auth.exchange("PLAIN", FACTS), plain("ada", "secret")) == Busy():
            await asyncio.sleep(0.01)
        before = len(peer.lines)
        assert await responded(login, b"ada") == Busy(), "at once, not when the time is over"
        assert len(peer.lines) == before
        auth.close()


async def test_dovecot_that_does_not_say_what_it_has_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dovecot, "RETRY_S", 0.05)
    said: list[str] = []
    async with fake(tmp_path / "auth") as peer:
        greeting, peer.greeting = peer.greeting, b"VERSION\t1\t2\n"  # and nothing more
        auth = house(backend(tmp_path / "auth", said, AuthOptions(timeout_s=1.0)))
        assert await begun(auth.exchange("PLAIN", FACTS), plain("ada", "secret")) == Busy()
        await settled(lambda: any("no handshake within 1 s" in line for line in said))
        peer.greeting = greeting
        await settled(lambda: any("is back" in line for line in said))
        assert isinstance(await begun(auth.exchange("PLAIN", FACTS), plain("ada", "secret")), Right)
        await asyncio.sleep(1.2)
        assert isinstance(await begun(auth.exchange("PLAIN", FACTS), plain("ada", "secret")), Right)
        assert len(said) == 3, "the limit was for the handshake alone"
        auth.close()


async def test_dovecot_that_speaks_something_else(tmp_path: Path) -> None:
    said: list[str] = []
    async with fake(tmp_path / "auth") as peer:
        peer.greeting = b"VERSION\t9\t0\n"
        auth = house(backend(tmp_path / "auth", said))
        assert await begun(auth.exchange("PLAIN", FACTS), plain("ada", "secret")) == Busy()
        assert "version '9'" in said[0]
        auth.close()


# ---- a function


def function_house(function: Any, options: AuthOptions = QUICK, said: list[str] | None = None) -> Authenticator:
    lines = [] if said is None else said
    loop = asyncio.get_running_loop()
    source = FunctionSource(function, options, loop, ThreadPoolExecutor(2), b"secret", lines.append)
    return house(OwnMechanisms(source, random.Random(1)), options=options)


def check(question: LoginQuestion) -> Account | str | None:
    if question.password == "secret":
        return Account(question.name, addresses=("Sales@example.org",)) if question.name == "ada" else question.name
    return None


async def check_later(question: LoginQuestion) -> Account | str | None:
    await asyncio.sleep(0)
    return check(question)


@pytest.mark.parametrize("function", [check, check_later])
async def test_a_function_says_who_it_is(function: Any) -> None:
    auth = function_house(function)
    assert auth.mechanisms(bindable=True) == ("PLAIN", "LOGIN")
    found = await begun(auth.exchange("PLAIN", FACTS), plain("ada", "secret"))
    assert found == Right(Account("ada", addresses=("sales@example.org",)))
    assert auth.owns("ada", Address("sales", "example.org")) and not auth.owns("ada", Address("ada", "example.org"))
    assert await begun(auth.exchange("PLAIN", FACTS), plain("bob@x.test", "secret")) == Right(Account("bob@x.test"))
    assert await begun(auth.exchange("PLAIN", FACTS), plain("ada", "wrong")) == Wrong("ada")
    assert await begun(auth.exchange("PLAIN", FACTS), b"root\0ada\0secret") == Wrong("ada"), "as itself only"
    auth.close()


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda question: 1 / 0, "ZeroDivisionError"),
        (lambda question: 7, "a int, which is neither"),
        (lambda question: "a\nb", "an account name that is not valid"),
        (lambda question: Account("a", addresses=("nonsense",)), "an address that is neither"),
    ],
)
async def test_a_function_that_breaks_is_temporary(function: Any, text: str) -> None:
    said: list[str] = []
    auth = function_house(function, AuthOptions(), said)
    assert await begun(auth.exchange("PLAIN", FACTS), plain("ada", "secret")) == Busy()
    assert text in said[0] and "secret" not in said[0]
    auth.close()


async def test_a_function_that_does_not_answer_is_temporary() -> None:
    said: list[str] = []
    go = threading.Event()
    auth = function_house(lambda question: go.wait(60) and None, AuthOptions(timeout_s=0.1), said)
    assert await begun(auth.exchange("PLAIN", FACTS), plain("ada", "secret")) == Busy()
    go.set()
    assert "did not answer within 0.1 s" in said[0] and "secret" not in said[0]
    auth.close()


async def test_a_function_may_bring_keys_tokens_and_certificates() -> None:
    keys = (scram_keys.derive(Hash.SHA_256, "pencil", b"0123456789abcdef", 4096),)

    def function(question: LoginQuestion) -> Account | None:
        asked.append(question)
        match question:
            case LoginQuestion(mechanism="SCRAM-SHA-256", name="ada", password=None):
                return Account("ada", keys=keys)
            case LoginQuestion(token="good"):
                return Account("ada")
            case LoginQuestion(certificate=("ada",)):
                return Account("ada")
        return None

    asked: list[LoginQuestion] = []
    named = ("SCRAM-SHA-256", "XOAUTH2", "OAUTHBEARER", "EXTERNAL")
    auth = function_house(function, AuthOptions(mechanisms=named, failure_delay_s=0))
    assert auth.mechanisms(bindable=True, certificate=True) == ("EXTERNAL", "SCRAM-SHA-256", "OAUTHBEARER", "XOAUTH2")
    for name, expected in (("ada", Right(Account("ada", keys=keys))), ("eve", Wrong("eve"))):
        client = ScramClient(Hash.SHA_256, name, "nonce")
        exchange = auth.exchange("SCRAM-SHA-256", FACTS)
        outcome = await begun(exchange, client.initial)
        assert isinstance(outcome, Challenged) and exchange is not None
        salting = client.server_first(outcome.octets)
        assert isinstance(salting, Salting)
        final = client.finish(scram_keys.salted(Hash.SHA_256, "pencil", salting.salt, salting.iterations))
        outcome = await responded(exchange, final)
        if isinstance(outcome, Challenged):
            outcome = await responded(exchange, b"")
        assert outcome == expected
    assert await begun(auth.exchange("XOAUTH2", FACTS), clients.xoauth2("ada", "good")) == Right(Account("ada"))
    assert isinstance(await begun(auth.exchange("XOAUTH2", FACTS), clients.xoauth2("eve", "good")), Challenged)
    shown = SessionFacts(certificate=("ada",))
    assert await begun(auth.exchange("EXTERNAL", shown), b"") == Right(Account("ada"))
    assert await begun(auth.exchange("EXTERNAL", shown), b"eve") == Wrong("eve")
    assert all("good" not in repr(question) for question in asked)
    auth.close()


def test_functions_are_found_by_name(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def check(question):\n    return question.name\nother = 7\n")
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    found = load(f"{tmp_path}/mine.py:check")
    assert not isinstance(found, str) and found(LoginQuestion("PLAIN", "ada")) == "ada"
    assert load("tests.unit.accounts.test_backends:check") is not None
    for named in (
        f"{tmp_path}/mine.py:nothing", f"{tmp_path}/mine.py:other", f"{tmp_path}/broken.py:check",
        f"{tmp_path}/none.py:check", "nothing_of_this_name:check",
    ):  # fmt: skip
        assert isinstance(load(named), str), named


# ---- tokens


class Endpoint(BaseHTTPRequestHandler):
    """An introspection endpoint: what `answers` has for a token."""

    answers: ClassVar[dict[str, tuple[int, Any]]]
    asked: ClassVar[list[tuple[str, str]]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.asked.append((self.headers.get("Authorization", ""), body))
        token = body.partition("token=")[2].partition("&")[0]
        status, said = self.answers.get(token, (200, {"active": False}))
        octets = said if isinstance(said, bytes) else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(octets)))
        self.end_headers()
        self.wfile.write(octets)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[tuple[str, type[Endpoint]]]:
    class Mine(Endpoint):
        answers: ClassVar[dict[str, tuple[int, Any]]] = {}
        asked: ClassVar[list[tuple[str, str]]] = []

    server = HTTPServer(("127.0.0.1", 0), Mine)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/introspect?x=1", Mine
    server.shutdown()
    thread.join()
    server.server_close()


def token_house(options: IntrospectionOptions, said: list[str] | None = None) -> Authenticator:
    lines = [] if said is None else said
    loop = asyncio.get_running_loop()
    fetch = fetcher(ThreadPoolExecutor(2))
    source = Introspection(options, QUICK, loop, SystemClock(), random.Random(1), fetch, lines.append)
    return house(OwnMechanisms(source, random.Random(1), options.scope))


async def test_tokens_are_introspected(endpoint: tuple[str, type[Endpoint]]) -> None:
    url, peer = endpoint
    peer.answers["good"] = (200, {"active": True, "username": "ada@example.org", "scope": "mail smtp", "aud": ["mx"]})
    auth = token_house(IntrospectionOptions(url, "mail", "p:w ü", scope="smtp", audience="mx"))
    assert auth.mechanisms(bindable=True) == ("OAUTHBEARER", "XOAUTH2")
    right = Right(Account("ada@example.org"))
    assert await begun(auth.exchange("XOAUTH2", FACTS), clients.xoauth2("ada@example.org", "good")) == right
    assert await begun(auth.exchange("OAUTHBEARER", FACTS), clients.oauthbearer("", "good", "", 0)) == right
    expected = "Basic " + base64.b64encode(b"mail:p%3Aw+%C3%BC").decode()
    assert peer.asked == [(expected, "token=good&token_type_hint=access_token")], "the second time it is remembered"
    for mechanism, first in (
        ("OAUTHBEARER", clients.oauthbearer("eve@example.org", "good", "", 0)),  # somebody else's
        ("OAUTHBEARER", clients.oauthbearer("ada@example.org", "bad", "", 0)),
        ("XOAUTH2", clients.xoauth2("ada@example.org", "bad")),
    ):
        exchange = auth.exchange(mechanism, FACTS)
        outcome = await begun(exchange, first)
        assert isinstance(outcome, Challenged) and exchange is not None
        assert json.loads(outcome.octets)["scope"] == "smtp"
        assert isinstance(await responded(exchange, b"\x01"), Wrong)
    auth.close()


async def test_a_token_that_was_refused_counts_though_the_client_cancels(endpoint: tuple[str, type[Endpoint]]) -> None:
    auth = token_house(IntrospectionOptions(endpoint[0]))
    told: list[Tried] = []
    auth.noted = told.append
    exchange = auth.exchange("XOAUTH2", FACTS)
    assert isinstance(await begun(exchange, clients.xoauth2("ada", "guess")), Challenged) and exchange is not None
    assert told == []
    exchange.cancel()
    assert told == [Tried("192.0.2.1", "ada", "XOAUTH2", False)]
    whole = auth.exchange("XOAUTH2", FACTS)
    await begun(whole, clients.xoauth2("ada", "guess"))
    assert whole is not None and isinstance(await responded(whole, b""), Wrong)
    whole.cancel()
    assert len(told) == 2, "once each"
    auth.close()


@pytest.mark.parametrize("at_once", [False, True])
async def test_who_waits_when_a_reload_closes_the_backend_is_answered(at_once: bool) -> None:
    """Also who has come in the same turn of the loop: its task was cancelled before it had begun, and told nobody."""

    async def never(*about: object) -> None:
        await asyncio.Event().wait()

    loop = asyncio.get_running_loop()
    source = Introspection(
        IntrospectionOptions("http://x.test/"), QUICK, loop, SystemClock(), random.Random(1), never,  # type: ignore[arg-type]
        lambda text: None,
    )  # fmt: skip
    for auth, mechanism, initial in (
        (house(OwnMechanisms(source, random.Random(1))), "XOAUTH2", clients.xoauth2("ada", "x")),
        (function_house(never), "PLAIN", plain("ada", "secret")),
    ):
        waiting: asyncio.Future[Outcome] = loop.create_future()
        exchange = auth.exchange(mechanism, FACTS)
        assert exchange is not None
        exchange.begin(initial, waiting.set_result)
        if not at_once:
            await asyncio.sleep(0.01)
        auth.close()
        async with asyncio.timeout(5):
            assert await waiting == Busy()


async def test_a_time_of_null_is_no_time(endpoint: tuple[str, type[Endpoint]]) -> None:
    url, peer = endpoint
    peer.answers["good"] = (200, {"active": True, "username": "ada", "exp": None})
    auth = token_house(IntrospectionOptions(url))
    async with asyncio.timeout(5):
        assert await begun(auth.exchange("XOAUTH2", FACTS), clients.xoauth2("ada", "good")) == Right(Account("ada"))
    auth.close()


async def test_an_authorization_server_that_fails_is_temporary(endpoint: tuple[str, type[Endpoint]]) -> None:
    url, peer = endpoint
    peer.answers.update(
        broken=(500, {}), odd=(200, b"<html>"), list=(200, []), none=(200, {}), big=(200, b" " * 100_000)
    )
    said: list[str] = []
    auth = token_house(IntrospectionOptions(url), said)
    for token in peer.answers:
        assert await begun(auth.exchange("XOAUTH2", FACTS), clients.xoauth2("ada", token)) == Busy(), token
    assert len(said) == 5 and not any("broken" in line for line in said)
    away = token_house(IntrospectionOptions("http://127.0.0.1:1/"), said)
    assert await begun(away.exchange("XOAUTH2", FACTS), clients.xoauth2("ada", "x")) == Busy()
    assert "http://127.0.0.1:1/" in said[-1]
    auth.close()


@pytest.mark.parametrize(
    ("claims", "account"),
    [
        ({"active": True, "username": "ada"}, "ada"),
        ({"active": True, "username": "ada", "exp": 1001}, "ada"),
        ({"active": True, "username": "ada", "exp": 1000}, None),
        ({"active": True, "username": "ada", "exp": "soon"}, None),
        ({"active": False, "username": "ada"}, None),
        ({"active": True}, None),
        ({"active": True, "username": 7}, None),
        ({"active": True, "username": "a\nb"}, None),
        ({"active": True, "username": ""}, None),
    ],
)
def test_claims(claims: dict[str, Any], account: str | None) -> None:
    found = introspection.owner(claims, IntrospectionOptions(""), 1000)
    assert (found.name if found is not None else None) == account


def test_scope_and_audience() -> None:
    options = IntrospectionOptions("", scope="a b", audience="mx", account_claim="sub")
    good = {"active": True, "sub": "ada", "scope": "b c a", "aud": "mx"}
    assert introspection.owner(good, options, 0) == Account("ada")
    for worse in ({"scope": "a"}, {"scope": None}, {"aud": "web"}, {"aud": ["web"]}, {"aud": None}, {"sub": None}):
        assert introspection.owner({**good, **worse}, options, 0) is None, worse


def test_the_client_secret_is_not_shown() -> None:
    assert "hidden" not in repr(IntrospectionOptions("https://x.test/", "mail", "hidden"))


# ---- certificates, and several sources at once


async def test_certificates_name_their_accounts(tmp_path: Path) -> None:
    change(tmp_path / "users", f"ada::ada@local.test\nbob@local.test:{HASHER.hash('x')}\n", 1)
    options = AuthOptions(certificate_name=CertificateName.MAILBOX, failure_delay_s=0, account_domain="local.test")
    known = Accounts(tmp_path / "users", lambda faults: None)
    users: Source = Users(
        known, options, asyncio.get_running_loop(), random.Random(1), b"s", ThreadPoolExecutor(1), passwords=False
    )
    auth = house(OwnMechanisms(users, random.Random(1)), known=known, options=options)
    assert auth.mechanisms(bindable=True) == () and auth.mechanisms(bindable=True, certificate=True) == ("EXTERNAL",)
    shown = SessionFacts(certificate=("nobody@local.test", "bob@local.test"))
    for initial, expected in (
        (b"", "bob@local.test"), (b"bob@local.test", "bob@local.test"), (b"ada", None), (b"nobody@local.test", None),
    ):  # fmt: skip
        outcome = await begun(auth.exchange("EXTERNAL", shown), initial)
        assert (outcome.account.name if isinstance(outcome, Right) else None) == expected
    assert auth.owns("ada", Address("ada", "local.test")) and not auth.owns("bob", Address("bob", "local.test"))


async def test_accounts_without_a_domain_may_have_one() -> None:
    options = AuthOptions(account_domain="local.test", failure_delay_s=0)
    auth = function_house(lambda question: "carol", options)
    assert not auth.owns("carol", Address("carol", "local.test")), "before anybody has authenticated so"
    await begun(auth.exchange("PLAIN", FACTS), plain("carol", "x"))
    assert auth.owns("carol", Address("carol", "local.test"))
    assert not auth.owns("carol", Address("eve", "local.test")) and not auth.owns("carol", Address("carol", "x.test"))
    auth.close()


async def test_who_has_authenticated_before_a_reload_keeps_its_addresses() -> None:
    before, after = function_house(check), function_house(check)
    await begun(before.exchange("PLAIN", FACTS), plain("ada", "secret"))
    after.follow(before)
    assert after.owns("ada", Address("sales", "example.org")) and not after.owns("ada", Address("eve", "example.org"))
    before.close()
    after.close()


async def test_a_mechanism_that_has_gone() -> None:
    auth = function_house(check)
    assert auth.exchange("XOAUTH2", FACTS) is None
    auth.close()
