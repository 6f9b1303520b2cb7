"""An edition is taken by every room in the same way, at the start and at a reload."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from postroad.config import options
from postroad.config.load import load
from postroad.config.settings import Settings
from postroad.mail.address import Address
from postroad.mail.envelope import Envelope, Recipient
from postroad.node.sockets import Endpoint, endpoints
from postroad.node.wiring.assembly import Assembly
from postroad.node.wiring.world import system_world
from postroad.report.log import Log
from tests.peers.harness import ports

A = """
hostname = "a.example"
[[listener]]
name = "mx"
role = "mx"
address = ["127.0.0.1"]
port = {port}
[[domain]]
name = "a.test"
recipients = "any"
path = "mail/{{domain}}/{{local_part}}"
"""
B = """
hostname = "b.example"
postmaster = "postmaster@b.test"
[[listener]]
name = "relay"
role = "relay"
trusted_networks = ["192.0.2.0/24"]
address = ["127.0.0.1"]
port = {port}
hello_syntax = true
[[listener]]
name = "more"
role = "mx"
address = ["unix:{folder}/more"]
[[domain]]
name = "b.test"
recipients = ["ann"]
path = "mail/{{domain}}/{{local_part}}"
[[next_hop]]
domain = "far.test"
host = "192.0.2.9"
[limits]
sessions_max = 777
content_memory_max = "99M"
files_reserved = 33
command_s = 444
rate_s = 61
[auth]
client_max = 3
[bans]
window_s = 62
[dsn]
strangers_max = 5
[queue]
retry_first_s = 70
connections_max = 71
unsettled_max = 72
[[pace]]
domain = ["far.test"]
connections_max = 2
[outbound]
connect_s = 17
idle_s = 3
[dns]
servers = ["127.0.0.1:5399"]
[relay]
domains = ["etrn.test"]
etrn = [{{ domains = ["etrn.test"], networks = ["192.0.2.0/24"] }}]
[log]
level = "warning"
"""


ADDRESSES = [Address("ann", "a.test"), Address("ann", "b.test"), Address("bob", "b.test"), Address("a", "far.test")]


class Freely:
    """Permits for whatever is asked."""

    def acquire(self, scopes: tuple[str, ...], count: int, granted: Callable[[int], None]) -> None:
        granted(count)

    def release(self, scopes: tuple[str, ...]) -> None: ...
    def succeeded(self, scopes: tuple[str, ...], successes: int) -> None: ...
    def refused(self, scopes: tuple[str, ...], others: bool) -> None: ...
    def tokens(self, key: str, scopes: tuple[str, ...], count: int, granted: Callable[[int], None]) -> None: ...


def _settings(folder: Path, text: str, port: int) -> Settings:
    path = folder / "postroad.toml"
    path.write_text(f'state_dir = "{folder}/state"\n{text.format(port=port, folder=folder)}')
    found = load(path)
    assert isinstance(found, Settings), found
    return found


def _bound(endpoint: Endpoint) -> socket.socket:
    if endpoint.path:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(endpoint.path)
        sock.listen()
        return sock
    return socket.create_server((endpoint.address, endpoint.port))


@contextlib.asynccontextmanager
async def _serving(folder: Path, settings: Settings, number: int = 0) -> AsyncIterator[Assembly]:
    world, loop = system_world(random.Random(1)), asyncio.get_running_loop()
    log = Log(options.log_options(settings), loop, world.clock.now_us)
    assembly = Assembly(
        settings, number=number, shards=(number,), world=world, permits=Freely(), log=log, loop=loop
    )
    assert await assembly.start({each: _bound(each) for each in endpoints(settings)}) == ""
    try:
        yield assembly
    finally:
        await assembly.stop(5)


async def _reloaded(assembly: Assembly, settings: Settings) -> None:
    new = {each: _bound(each) for each in endpoints(settings) if each not in assembly._listeners}
    assert assembly.prepare(settings) == ""
    await assembly.commit(new)


def _held(assembly: Assembly) -> dict[str, Any]:
    """What each room holds of the settings."""
    tables, opener, queue = assembly.tables, assembly._opener, assembly.queue
    return {
        "log": assembly._log._options,
        "log level": assembly._log._rank,
        "room": assembly._has_room._reserved,
        "tally": [window.length_us for window in assembly._tally.windows],
        "rates": assembly._rates.limits,
        "budget": assembly._budget.most,
        "clients": assembly._clients.options,
        "places": assembly._places.limits,
        "reporter": assembly._reporter._options,
        "courier": (opener._shared.name, opener._shared.options, opener._shared.limits_s, opener._ways.shared.options),
        "memory": (opener._memory._failed_s, opener._memory._plain_s, opener._memory._broken_s),
        "client tls": opener._ways.tls.options,
        "resolver": assembly._edition.resolver._options if hasattr(assembly._edition.resolver, "_options") else None,
        "queue": queue.options,
        "pace": [queue._carrying._pacing._table.limits(scope) for scope in ("far.test", "other.test")],
        "routes": [queue.destination_of(Envelope(0, None, (), 0, 0), Recipient(each)) for each in ADDRESSES],
        "etrn": (assembly._starter.options, [assembly._starter.routing.is_relay(name) for name in ("etrn.test", "x")]),
        "domains": [tables.known(address) for address in ADDRESSES],
        "listeners": {
            endpoint.path or endpoint.address: (listener.setup.listener, listener.setup.options)
            for endpoint, listener in assembly._listeners.items()
        },
    }


async def test_to_start_with_one_edition_and_take_another_is_to_start_with_the_other(tmp_path: Path) -> None:
    port = ports.port()
    first, second = _settings(tmp_path, A, port), _settings(tmp_path, B, port)
    async with _serving(tmp_path, second) as assembly:
        wanted = _held(assembly)
    (tmp_path / "more").unlink()
    async with _serving(tmp_path, first) as assembly:
        before = _held(assembly)
        alike = [room for room in wanted if before[room] == wanted[room] and room not in ("client tls", "memory")]
        assert alike in ([], ["resolver"]), "the two editions differ for each room, else nothing is tested"
        await _reloaded(assembly, second)
        assert _held(assembly) == wanted
        (tmp_path / "more").unlink()
        await _reloaded(assembly, first)
        assert _held(assembly) == before


async def test_to_take_the_same_edition_again_changes_nothing(tmp_path: Path) -> None:
    settings = _settings(tmp_path, B, ports.port())
    async with _serving(tmp_path, settings) as assembly:
        before, memory = _held(assembly), assembly._opener._memory
        listeners, windows = dict(assembly._listeners), assembly._tally.windows
        await _reloaded(assembly, settings)
        assert _held(assembly) == before
        assert assembly._opener._memory is memory, "what was learned of hosts"
        assert assembly._listeners == listeners and assembly._tally.windows == windows


async def test_what_cannot_be_an_edition_leaves_the_old_one(tmp_path: Path) -> None:
    settings = _settings(tmp_path, A, ports.port())
    (tmp_path / "aliases").write_text("")
    wrong = Settings.model_validate(
        {**settings.model_dump(mode="json", exclude_none=True), "aliases": str(tmp_path / "aliases")}
    )
    (tmp_path / "aliases").write_text("info ada\n")
    async with _serving(tmp_path, settings) as assembly:
        edition, before = assembly._edition, _held(assembly)
        assert f"{tmp_path}/aliases:1" in assembly.prepare(wrong)
        await assembly.commit({})
        assert assembly._edition is edition and _held(assembly) == before
        assert assembly.prepare(settings) == ""
        assembly.abandon()
        await assembly.commit({})
        assert assembly._edition is edition


async def test_deliveries_end_while_a_report_to_others_is_still_made(tmp_path: Path) -> None:
    """Making a large report takes seconds, within which the supervisor may end the worker."""
    drained = asyncio.Event()
    ended = []

    class Slow:
        async def stop(self) -> None:
            await asyncio.wait_for(drained.wait(), 20)
            ended.append("reports")

    async with _serving(tmp_path, _settings(tmp_path, B, ports.port())) as assembly:
        assert assembly.feedback is not None
        real = assembly.queue.drain

        async def drain(limit_s: float) -> bool:
            drained.set()
            return await real(limit_s)

        assembly.queue.drain = drain  # type: ignore[method-assign]
        assembly.feedback = Slow()  # type: ignore[assignment]
    assert ended == ["reports"]
