"""ETRN over a real socket, with all rooms of a worker behind it: an account starts the queue of its domain."""

from __future__ import annotations

import asyncio
import contextlib
import random
import smtplib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from postroad.config import options
from postroad.config.load import parse
from postroad.config.settings import Settings
from postroad.node.sockets import endpoints
from postroad.node.wiring.assembly import Assembly
from postroad.node.wiring.world import system_world
from postroad.report.log import Log
from tests.unit.accounts.test_accounts import HASHER
from tests.unit.deliver.remote import Remote

CONFIGURATION = """
hostname = "mx.example.test"
state_dir = "state"

[[listener]]
name = "submission"
address = "127.0.0.1"
port = 2525
role = "submission"
tls = "none"
auth = true
auth_without_tls = true

[auth]
users = "users"

[relay]
domains = ["branch.example", "other.example"]

[[relay.etrn]]
domains = ["branch.example"]
accounts = ["branch"]

[[next_hop]]
domain = "branch.example"
host = "127.0.0.1"
port = PORT
tls = "never"

[queue]
retry_first_s = 3600
backoff_first_s = 3600
backoff_max_s = 3600
"""


class Freely:
    """Permits without a limit."""

    def acquire(self, scopes: tuple[str, ...], count: int, granted: Callable[[int], None]) -> None:
        granted(count)

    def release(self, scopes: tuple[str, ...]) -> None: ...

    def succeeded(self, scopes: tuple[str, ...], successes: int) -> None: ...

    def refused(self, scopes: tuple[str, ...], others: bool) -> None: ...

    def tokens(self, key: str, scopes: tuple[str, ...], count: int, granted: Callable[[int], None]) -> None:
        granted(count)


def settings(folder: Path, port: int) -> Settings:
    (folder / "users").write_text("".join(f"{name}:{HASHER.hash('secret')}:*\n" for name in ("branch", "ann")))
    (folder / "users").chmod(0o600)
    (folder / "state").mkdir()
    made = parse(CONFIGURATION.replace("PORT", str(port)), folder / "postroad.toml")
    assert isinstance(made, Settings), made
    return made


async def until(come: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not come():
            await asyncio.sleep(0.01)


def said(address: tuple[str, int], account: str, *nodes: str) -> list[tuple[int, bytes]]:
    with smtplib.SMTP(*address, timeout=20) as client:
        if account:
            client.login(account, "secret")
        else:
            client.ehlo()
        assert client.has_extn("etrn")
        return [client.docmd("ETRN", node) for node in nodes]


def submit(address: tuple[str, int]) -> None:
    with smtplib.SMTP(*address, timeout=20) as client:
        client.login("ann", "secret")
        for number in range(2):
            client.sendmail("ann@elsewhere.test", ["bob@branch.example"], f"Subject: n{number}\r\n\r\nhello\r\n")


async def test_an_account_starts_the_queue_of_its_domain(tmp_path: Path) -> None:
    remote = await Remote(answers={"GREETING": b"421 4.3.2 not now\r\n"}).start()
    loop, world = asyncio.get_running_loop(), system_world(random.Random(1))
    made = settings(tmp_path, remote.port)
    (endpoint,) = endpoints(made)
    sock = socket.create_server(("127.0.0.1", 0))
    address = sock.getsockname()
    log = Log(options.log_options(made), loop, world.clock.now_us)
    assembly = Assembly(
        made, number=0, shards=(0,), world=world, permits=Freely(), log=log, loop=loop,
    )  # fmt: skip
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(remote.stop)
        assert await assembly.start({endpoint: sock}) == ""
        stack.push_async_callback(assembly.stop, 10)
        await asyncio.to_thread(submit, address)
        await until(lambda: assembly.activity().left_alone)  # tried, and not again within the hour
        del remote.answers["GREETING"]

        for account in ("", "ann"):
            assert await asyncio.to_thread(said, address, account, "branch.example") == [
                (459, b"4.7.1 Node branch.example not allowed: not for this client")
            ]
        assert not remote.mails
        started, other = await asyncio.to_thread(said, address, "branch", "branch.example", "other.example")
        assert started == (253, b"2.0.0 OK, 2 pending messages for node branch.example started")
        assert other[0] == 459
        await until(lambda: len(remote.mails) == 2)
