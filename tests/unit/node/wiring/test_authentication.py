"""Authentication as a worker puts it together: what is slow keeps nothing else waiting."""

from __future__ import annotations

import asyncio
import random
import socket
from pathlib import Path

from postroad.accounts.accounts import Account, Accounts, format_line
from postroad.accounts.authenticate import Authenticator, Outcome, Right, SessionFacts
from postroad.config.load import parse
from postroad.config.settings import Settings
from postroad.node.wiring.authentication import FETCH_THREADS, authenticator, read_accounts
from postroad.protocol.sasl import clients
from postroad.world.clock import SystemClock
from postroad.world.http import fetcher
from postroad.world.network import SystemNetwork
from tests.unit.accounts.test_accounts import HASHER


def settings(folder: Path, port: int) -> Settings:
    (folder / "users").write_text(f"{format_line(Account('ada', HASHER.hash('secret'), ('*',)))}\n")
    found = parse(
        f"""\
hostname = "mail.example.org"
state_dir = "state"
[auth]
users = "users"
timeout_s = 20
[auth.introspection]
url = "http://127.0.0.1:{port}/introspect"
[[listener]]
name = "submission"
address = "127.0.0.1"
port = 2525
role = "submission"
auth_without_tls = true
""",
        folder / "postroad.toml",
        files=False,
    )
    assert isinstance(found, Settings), [str(problem) for problem in found]
    return found


def asked(
    auth: Authenticator, mechanism: str, initial: bytes, address: str = "192.0.2.1"
) -> asyncio.Future[Outcome]:
    told: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    exchange = auth.exchange(mechanism, SessionFacts(address))
    assert exchange is not None
    exchange.begin(initial, told.set_result)
    return told


async def test_passwords_do_not_wait_for_an_authorization_server(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        chosen = settings(tmp_path, silent.getsockname()[1])
        accounts = read_accounts(chosen, lambda path, faults: None)
        assert isinstance(accounts, Accounts)
        auth = authenticator(
            chosen, accounts, loop=loop, clock=SystemClock(), entropy=random.Random(1), network=SystemNetwork(),
            fetcher=fetcher, log=lambda text: None,
        )
        assert isinstance(auth, Authenticator)
        tokens = [
            asked(auth, "XOAUTH2", clients.xoauth2("ada", f"token{number}"), f"198.51.100.{number}")
            for number in range(2 * FETCH_THREADS)
        ]
        for _ in range(3):
            await asyncio.sleep(0)  # the tokens come first
        async with asyncio.timeout(10):  # of the 20 s that a token may take
            assert isinstance(await asked(auth, "PLAIN", b"\0ada\0secret"), Right)
        assert not any(token.done() for token in tokens)
        auth.close()
