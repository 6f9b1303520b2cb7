"""The machine: listening sockets, users, limits, the service manager; and the clock, files, memory."""

from __future__ import annotations

import os
import resource
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from postroad.world import system
from postroad.world.clock import SystemClock
from postroad.world.files import Stamp, stamp
from postroad.world.memory import MemoryOptions, tune_malloc
from postroad.world.problem import Problem, unreadable
from postroad.world.system import ServiceManager, bind, bind_unix
from tests.unit.rights import as_ordinary_user


def test_a_listening_socket() -> None:
    sock = bind("127.0.0.1", 0)
    assert isinstance(sock, socket.socket)
    with sock, socket.create_connection(sock.getsockname(), 1):
        assert not sock.getblocking() and not sock.get_inheritable()


def test_in_use_is_found_at_once_with_its_remedy() -> None:
    sock = bind("127.0.0.1", 0)
    assert isinstance(sock, socket.socket)
    with sock:
        port = sock.getsockname()[1]
        found = bind("127.0.0.1", port)
    assert isinstance(found, Problem)
    assert found.where == f"127.0.0.1:{port}" and "in use" in found.text and f":{port}" in found.remedy


def test_reuse_port() -> None:
    first = bind("127.0.0.1", 0, reuse_port=True)
    assert isinstance(first, socket.socket)
    second = bind("127.0.0.1", first.getsockname()[1], reuse_port=True)
    assert isinstance(second, socket.socket)
    first.close()
    second.close()


@pytest.mark.parametrize(
    ("address", "port", "word"),
    [
        ("192.0.2.123", 2525, "not an address of this machine"),
        ("mx.example.org", 25, "not an IP address"),
        ("127.0.0.1", 65536, "valid port"),
        ("127.0.0.1", -1, "valid port"),
    ],
)
def test_what_cannot_be_listened_on(address: str, port: int, word: str) -> None:
    found = bind(address, port)
    assert isinstance(found, Problem) and word in found.text and found.remedy


def test_a_port_that_is_for_root() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    assert first > 1, "on this machine any user may listen anywhere"
    with as_ordinary_user():
        found = str(bind("127.0.0.1", min(25, first - 1)))
    assert "is not allowed for this user" in found and "CAP_NET_BIND_SERVICE" in found


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_a_unix_socket_and_its_mode(tmp_path: Path, mode: int) -> None:
    path = str(tmp_path / "socket")
    umask = os.umask(0o022)
    try:
        sock = bind_unix(path, mode=mode)
        assert os.umask(0o022) == 0o022  # it is as it was
    finally:
        os.umask(umask)
    assert isinstance(sock, socket.socket)
    assert stat.S_IMODE(os.stat(path).st_mode) == mode
    again = bind_unix(path)
    assert isinstance(again, Problem) and "in use" in again.text
    sock.close()  # as if the process had died: the file is still there
    replaced = bind_unix(path)
    assert isinstance(replaced, socket.socket)
    replaced.close()


def test_a_path_that_is_no_socket_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    found = bind_unix(str(path))
    assert isinstance(found, Problem) and path.read_text() == "precious"
    link = tmp_path / "link"
    link.symlink_to(path)
    assert isinstance(bind_unix(str(link)), Problem) and path.read_text() == "precious"
    absent = bind_unix(str(tmp_path / "absent" / "socket"))
    assert isinstance(absent, Problem) and absent.remedy


def test_own_addresses() -> None:
    found = system.own_addresses()
    assert not any(address.startswith(("127.", "fe80:")) or address == "::1" for address in found)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))  # sends nothing; the kernel chooses the address to send from
        except OSError:
            return  # no network at all
        assert sock.getsockname()[0] in found


# -- rights -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "group", "word"), [("no-such-user", "", "no such user"), ("root", "no-such-group", "no such group")]
)
def test_unknown_users(user: str, group: str, word: str) -> None:
    found = system.drop_privileges(user, group)
    assert isinstance(found, Problem) and word in found.text and found.remedy


CODE = """
import os
from postroad.world.system import drop_privileges
print(drop_privileges("nobody"), os.getresuid(), os.getresgid(), os.getgroups())
print(drop_privileges("nobody"))
print(drop_privileges("root"))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_rights_are_dropped_for_good() -> None:
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True
    )
    first, second, third = done.stdout.splitlines()
    assert first.startswith("None (65534, 65534, 65534) (65534, 65534, 65534) [65534]")
    assert second == "None"
    assert "not root" in third


def test_the_limit_of_files() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        soft = min(before[0], 256) if before[0] != resource.RLIM_INFINITY else 256
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
        assert system.raise_file_limit(soft) == soft
        assert system.raise_file_limit(soft + 100) == soft + 100
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == soft + 100
        assert system.raise_file_limit(soft) == soft + 100  # never lowered
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == soft + 100
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


# -- the service manager ----------------------------------------------------------------------------------------------


@pytest.fixture
def manager(tmp_path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(tmp_path / "notify"))
    sock.settimeout(1)
    return sock


def test_what_systemd_is_told(manager: socket.socket) -> None:
    told = ServiceManager({"NOTIFY_SOCKET": manager.getsockname()})
    assert told.ready("12 listeners\nREADY=0") and manager.recv(500) == b"READY=1\nSTATUS=12 listeners READY=0"
    assert told.stopping() and manager.recv(500) == b"STOPPING=1"
    assert told.status("busy") and manager.recv(500) == b"STATUS=busy"
    assert told.alive() and manager.recv(500) == b"WATCHDOG=1"
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert told.reloading()
    first, second = manager.recv(500).decode().split("\n")
    assert first == "RELOADING=1"
    name, _, moment = second.partition("=")
    assert name == "MONOTONIC_USEC" and before <= int(moment) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    manager.close()
    assert not told.ready()  # nobody there: no error


def test_an_abstract_socket() -> None:
    name = f"postroad-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + name)
        assert ServiceManager({"NOTIFY_SOCKET": "@" + name}).ready()
        assert sock.recv(100) == b"READY=1"


@pytest.mark.parametrize(
    ("environment", "watchdog_s"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "x"}, 0.0),
    ],
)
def test_without_a_manager_and_the_watchdog(environment: dict[str, str], watchdog_s: float) -> None:
    told = ServiceManager(environment)
    assert told.watchdog_s == watchdog_s
    assert not told.ready() and not told.stopping() and not told.alive()


# -- the clock, files, memory -----------------------------------------------------------------------------------------


def test_the_clock() -> None:
    before = time.time()
    now_us = SystemClock().now_us()
    assert before - 1 <= now_us / 1_000_000 <= time.time() + 1


def test_a_stamp_changes_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert stamp(str(path)) == Stamp()
    path.write_text("a")
    first = stamp(str(path))
    assert first != Stamp() and stamp(str(path)) == first
    os.utime(path, ns=(1, 1))
    second = stamp(str(path))
    assert second != first
    other = tmp_path / "other"
    other.write_text("b")
    os.utime(other, ns=(1, 1))
    other.replace(path)  # same size, same time, another file
    assert stamp(str(path)) != second


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (FileNotFoundError(2, "x"), "no such file"),
        (PermissionError(13, "x"), "may not be read"),
        (IsADirectoryError(21, "x"), "directory"),
        (OSError(5, "Input/output error"), "Input/output error"),
    ],
)
def test_unreadable_files(error: OSError, word: str) -> None:
    found = unreadable("/some/file", error)
    assert found.where == "/some/file" and word in found.text and found.remedy
    assert str(found).startswith("/some/file: ")
    assert str(Problem("a", "b")) == "a: b"


def test_malloc_is_tuned_where_there_is_glibc() -> None:
    # In a process of its own: the setting is for life.
    code = (
        "import ctypes, resource\n"
        "from postroad.world.memory import MemoryOptions, tune_malloc\n"
        "glibc = hasattr(ctypes.CDLL(None), 'gnu_get_libc_version')\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(200): bytes(bytearray(1_000_000))\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "before = faults()\n"
        "done = tune_malloc(MemoryOptions())\n"
        "faults()\n"
        "print(int(glibc), int(done), int(faults() * 10 < before or not glibc))"
    )
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    glibc, taken, effective = done.stdout.split()
    assert taken == glibc and effective == "1"
    assert tune_malloc(MemoryOptions(0, 0)) == (glibc == "1")


def test_new_privileges_are_forbidden_and_others_get_no_rights() -> None:
    script = (
        "import subprocess; from postroad.world import system; assert system.restrict() is None\n"
        "print(subprocess.run(['cat', '/proc/self/status'], capture_output=True, text=True).stdout)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    fields = dict(line.split(":\t") for line in ended.stdout.splitlines() if ":\t" in line)
    assert fields["NoNewPrivs"] == "1", "a program that a restricted process runs has them neither"
    assert fields["Umask"] == "0027"
