"""`make run` in a fresh copy of the tree: it sets itself up, starts, and the commands that it prints work."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import smtplib
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.harness import maildir, need
from tests.peers.harness.process import NotReady, Program, listens, until

_PORTS = (2525, 2587)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """All files of the checkout that git knows or would add."""
    listed = subprocess.run(
        ["git", "-C", str(need.ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True, check=True,
    ).stdout
    for name in filter(None, listed.decode().split("\0")):
        target = tmp_path / "postroad" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            shutil.copy(need.ROOT / name, target)
    return tmp_path / "postroad"


@contextlib.contextmanager
def _running(copy: Path) -> Iterator[Program]:
    environment = {"MAKEFLAGS": "", "VIRTUAL_ENV": ""}
    program = Program(["make", "run"], copy / "make.log", directory=copy, environment=environment)
    program.start()
    try:
        program.ready(lambda: all(listens("127.0.0.1", port) for port in _PORTS), "make run listens", within_s=240)
        until(lambda: "trace" in program.log(), "it says what to try")
        yield program
    finally:
        with contextlib.suppress(ProcessLookupError, NotReady):
            os.killpg(program.pid, signal.SIGTERM)
            program.wait(20)
        program.stop()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_make_run_and_what_it_prints(copy: Path) -> None:
    if any(listens("127.0.0.1", port) for port in _PORTS):
        need.missing(f"one of the ports {_PORTS} is in use")
    with _running(copy) as program:
        said = program.log(200)
        assert all(re.search(rf"127\.0\.0\.1(:| port ){port}", said) for port in _PORTS), said
        with smtplib.SMTP("127.0.0.1", 2525, timeout=20) as client:
            client.sendmail("me@elsewhere.test", ["you@example.test"], "Subject: first\r\n\r\nhello\r\n")
        assert maildir.wait(copy / "var" / "mail" / "example.test" / "you", of="Subject: first")
        name, password = _account(said)
        with smtplib.SMTP("127.0.0.1", 2587, timeout=20) as client:
            client.starttls(context=ssl._create_unverified_context())
            client.login(name, password)
            sender = name if "@" in name else f"{name}@example.test"
            client.sendmail(sender, ["me@example.test"], "Subject: submitted\r\n\r\nhello\r\n")
        assert maildir.wait(copy / "var" / "mail" / "example.test" / "me", of="Subject: submitted")
        commands = [line.strip().removeprefix("$ ") for line in said.splitlines()
                    if re.match(r"\s*\$? ?(\S*postroad|\S*python3?|swaks|curl) ", line)]
        assert len(commands) >= 3, said
        for command in commands:
            ran = subprocess.run(["bash", "-c", command], cwd=copy, capture_output=True, text=True, check=False,
                                 timeout=60)
            assert ran.returncode == 0, f"{command}\n{ran.stdout}{ran.stderr}"


def _account(said: str) -> tuple[str, str]:
    """The demo account as it was printed."""
    found = re.search(r"account\s+(\S+)\s+password\s+(\S+)", said)
    assert found is not None, said
    return found[1], found[2]
