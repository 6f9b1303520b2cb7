"""What a worker is told before it begins to serve: who is banned."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from postroad.check import bans
from postroad.check.banning import BanRequest
from postroad.check.bans import Ban
from postroad.config.carried import from_plain, to_plain
from postroad.config.load import load
from postroad.config.settings import Settings
from postroad.node.frames import (
    BansTold,
    FromWorker,
    Ready,
    Start,
    Stop,
    TicketSecretTold,
    ToWorker,
    read_from_worker,
    read_to_worker,
)
from postroad.node.link import Link
from postroad.node.sockets import endpoints
from postroad.node.supervisor import Supervisor
from tests.peers.harness import ports

BANNED = Ban("127.0.0.1", 1, 0, "spam", "root")


def _settings(folder: Path) -> Settings:
    (folder / "postroad.toml").write_text(
        f'hostname = "mail.example.org"\nstate_dir = "{folder}/state"\nworkers = 1\n'
        f'[[listener]]\nname = "mx"\nrole = "mx"\naddress = ["127.0.0.1"]\nport = {ports.port()}\n'
        '[[domain]]\nname = "example.org"\nrecipients = "any"\npath = "mail/{domain}/{local_part}"\n'
    )
    found = load(folder / "postroad.toml")
    assert isinstance(found, Settings), found
    return found


def _frames(sock: socket.socket) -> list[ToWorker]:
    sock.setblocking(False)
    octets, frames = b"", list[ToWorker]()
    with contextlib.suppress(BlockingIOError):
        while True:  # one piece ends where descriptors come
            octets += sock.recv(1_000_000)
    while octets:
        length, _ = struct.unpack_from("!IH", octets)
        frames.append(read_to_worker(octets[6 : 6 + length]))
        octets = octets[6 + length :]
    return frames


async def test_a_worker_hears_who_is_banned_ahead_of_its_start_and_while_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, ends = _settings(tmp_path), list[socket.socket]()
    (tmp_path / "state").mkdir()
    bans.write(tmp_path / "state", [BANNED], 1)

    class Started:
        """A process that does nothing; its end of the link is ours."""

        def __init__(self, command: list[str], **named: Any) -> None:
            ends.append(socket.socket(fileno=os.dup(int(command[-1]))))

    monkeypatch.setattr(subprocess, "Popen", Started)
    supervisor = Supervisor(
        settings, lambda: settings, lambda level, text: None, lambda *problem: "", lambda settings: None
    )
    assert supervisor.prepare() == ""
    supervisor._workers.start_all(1)
    worker = supervisor._workers[0]
    await supervisor.bans(BanRequest("add", ("192.0.2.1",)))
    assert not worker.ready
    first, secret, start, second = _frames(ends[0])
    assert first == BansTold((BANNED,))
    assert isinstance(secret, TicketSecretTold) and isinstance(start, Start)
    assert from_plain(start.settings) == settings
    assert isinstance(second, BansTold) and [each.subject for each in second.added] == ["192.0.2.1"]
    assert worker.link is not None
    worker.link.close()
    ends[0].close()
    os.close(supervisor._lock.descriptor)


async def test_a_worker_lets_nobody_in_who_was_banned_before_it_was_started(tmp_path: Path) -> None:
    settings, ready = _settings(tmp_path), asyncio.Event()
    ours, theirs = socket.socketpair()
    (tmp_path / "state" / "spool").mkdir(parents=True, mode=0o700)
    command = [sys.executable, "-m", "postroad.node.worker", str(theirs.fileno())]
    process = await asyncio.create_subprocess_exec(*command, pass_fds=(theirs.fileno(),))
    theirs.close()
    try:
        def received(frame: FromWorker, descriptors: list[int]) -> None:
            if isinstance(frame, Ready):
                ready.set()

        link = Link(ours, asyncio.get_running_loop(), read_from_worker, received, lambda why: None)
        with socket.create_server(("127.0.0.1", settings.listener[0].port)) as listening:
            link.send(BansTold((BANNED,)))
            link.send(Start(0, (0,), to_plain(settings), tuple(endpoints(settings))), [listening.fileno()])
            # In line before the worker begins to take anybody.
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            greeting = await asyncio.wait_for(reader.readline(), 30)
        assert greeting.startswith(b"421 4.7.0 Your address is banned")
        writer.close()
        await asyncio.wait_for(ready.wait(), 30)
        link.send(Stop(1.0))
        assert await asyncio.wait_for(process.wait(), 30) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
