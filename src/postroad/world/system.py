"""The machine around the node: listening sockets, user and rights, limits, and the service manager (systemd).

The supervisor uses it at its start and end; it is never used on the way of a message. What always holds: a socket that
is returned is already listening, so that "in use" is found before anything else starts; a Unix socket has its mode
before anybody can connect; rights that were given up cannot be taken back. How it fails: with Problem values.

Not here: reading configuration, workers (`node`).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import grp
import ipaddress
import itertools
import os
import pwd
import resource
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Final

from postroad.world.problem import Problem


def bind(address: str, port: int, *, reuse_port: bool = False, backlog: int = 512) -> socket.socket | Problem:
    """A listening TCP socket on an IP address ("" for all of IPv4 and IPv6) and port (0: any that is free).

    An IPv6 address takes IPv6 only, so that 0.0.0.0 and :: can be listened on side by side; "" takes both.
    """
    where = f"[{address}]:{port}" if ":" in address else f"{address or '*'}:{port}"
    try:
        family = socket.AF_INET6 if not address or ipaddress.ip_address(address).version == 6 else socket.AF_INET
    except ValueError:
        return Problem(where, _NO_ADDRESS, 'Write one such as "0.0.0.0", "127.0.0.1" or "::1".')
    if not 0 <= port < 65_536:
        return Problem(where, "has no valid port", "Write a port from 1 to 65535.")
    try:
        # The protocol is named because asyncio sets TCP_NODELAY only on sockets that say they are TCP's.
        kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        sock = socket.socket(family, kind, socket.IPPROTO_TCP)
    except OSError as error:
        return _cannot_listen(where, port, error)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1 if address else 0)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((address or "::", port))
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        return _cannot_listen(where, port, error)
    return sock


def bindable(address: str, port: int) -> Problem | None:
    """Why an IP address and port cannot be bound; None if they can, or if only the right is missing, which
    another user may have. Nothing listens meanwhile."""
    where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address, port))
    except PermissionError:
        return None
    except OSError as error:
        return _cannot_listen(where, port, error)
    return None


def blames_address(problem: Problem) -> bool:
    """Whether a place cannot be listened on for its address, whatever the port."""
    return problem.text in (_NO_ADDRESS, _NOT_OURS, _NO_IPV6)


_NO_ADDRESS = "is not an IP address to listen on"
_NOT_OURS = "is not an address of this machine"
_NO_IPV6 = "IPv6 is off on this machine"


def _cannot_listen(where: str, port: int, error: OSError) -> Problem:
    match error.errno:
        case errno.EADDRINUSE:
            remedy = f"Stop what listens there (`ss -ltnp 'sport = :{port}'` names it), or set another port."
            return Problem(where, "is in use", remedy)
        case errno.EACCES | errno.EPERM:
            remedy = "Start as root, grant CAP_NET_BIND_SERVICE, or set a port above 1023."
            return Problem(where, "is not allowed for this user", remedy)
        case errno.EADDRNOTAVAIL:
            return Problem(where, _NOT_OURS, "`ip address` lists the addresses of this machine.")
        case errno.EAFNOSUPPORT:
            return Problem(where, _NO_IPV6, 'Set an IPv4 address, such as "0.0.0.0".')
        case _:
            return Problem(where, f"cannot be listened on ({error.strerror or error})", "Set another address or port.")


def bind_unix(path: str, *, mode: int = 0o600, backlog: int = 512) -> socket.socket | Problem:
    """A listening Unix socket. One that a dead process left behind is replaced, one that is in use is not."""
    remedy = _occupied(path)
    if remedy is not None:
        return remedy
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    before = os.umask(0o177)
    try:
        sock.bind(path)
        os.chmod(path, mode)  # nobody can connect before listen()
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        return Problem(
            path, f"cannot be created ({error.strerror or error})", "Create its folder, and let Postroad write to it."
        )
    finally:
        os.umask(before)
    return sock


def peer_uid(sock: int) -> int:
    """The user id of who has connected to a Unix socket, by its descriptor (SO_PEERCRED: as of the connect)."""
    with socket.socket(fileno=os.dup(sock)) as ours:
        found = ours.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", found)[1])


def user_names(uid: int) -> tuple[str, str]:
    """Login name and full name of a user, from the system's user database, which may take its time; the number and ""
    for one that it does not know."""
    try:
        found = pwd.getpwuid(uid)
    except (KeyError, OverflowError):
        return str(uid), ""
    # The full name is what stands before the first comma; "&" is the login name.
    return found.pw_name, found.pw_gecos.partition(",")[0].replace("&", found.pw_name.capitalize())


def group_members(gid: int) -> list[str]:
    """Names of users who are listed in a group; those who have it as their own group are not."""
    try:
        return list(grp.getgrgid(gid).gr_mem)
    except KeyError:
        return []


def _occupied(path: str) -> Problem | None:
    """Why the path cannot be used; an abandoned socket there is removed."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return Problem(path, "exists and is not a socket", "Remove it, or set another path.")
    except FileNotFoundError:
        return None
    except OSError as error:
        return Problem(path, f"cannot be looked at ({error.strerror or error})", "Check the rights of its folder.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return None
        except OSError as error:
            return Problem(path, f"cannot be tried ({error.strerror or error})", "Check the socket's owner and mode.")
    return Problem(path, "is in use", "Stop the program that listens there, or set another path.")


def tried_as(user: str, group: str, command: Sequence[str], limit_s: float) -> str:
    """Runs a command with the rights of a user and group, if we are root and there is such a user; else with our
    own. "" if it ends well, else the last lines that it has said on stderr, or how it ended."""
    given: dict[str, object] = {}
    if os.geteuid() == 0 and user:
        try:
            account = pwd.getpwnam(user)
            number = grp.getgrnam(group).gr_gid if group else account.pw_gid
        except KeyError as error:
            return str(error)
        given = {"user": account.pw_uid, "group": number, "extra_groups": os.getgrouplist(user, number)}
    try:
        done = subprocess.run(  # type: ignore[call-overload]
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit_s, check=False, **given
        )
    except subprocess.TimeoutExpired:
        return f"it took longer than {limit_s:g} s"
    except OSError as error:
        return f"{command[0]}: {error.strerror or error}"
    if done.returncode == 0:
        return ""
    said: str = done.stderr.decode("utf-8", "replace").strip()
    return said[-_SAID_MAX:] or f"it ended with exit code {done.returncode}"


_SAID_MAX = 1_000


def own_addresses() -> frozenset[str]:
    """The IP addresses of this machine's interfaces, loopback and link-local ones left out, as Linux lists them in
    /proc; empty if there is no such list."""
    found = {_ipv6_of(line) for line in _lines("/proc/net/if_inet6")}
    lines = _lines("/proc/net/fib_trie")
    # A local address is a leaf: "|-- 192.0.2.1", and in the line behind it "/32 host LOCAL".
    found |= {line.split()[-1] for line, next_line in itertools.pairwise(lines) if "/32 host LOCAL" in next_line}
    parsed = map(ipaddress.ip_address, found)
    return frozenset(str(address) for address in parsed if not (address.is_loopback or address.is_link_local))


def _ipv6_of(line: str) -> str:
    return str(ipaddress.IPv6Address(int(line[:32], 16)))


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().splitlines()
    except OSError:
        return []


def drop_privileges(user: str, group: str = "") -> Problem | None:
    """Become `user` for good, with its groups; `group` instead of its own main group. Nothing is done if this
    process runs as that user already."""
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        return Problem(user, "there is no such user", f"Create it (`useradd --system {user}`), or set another user.")
    try:
        group_id = grp.getgrnam(group).gr_gid if group else account.pw_gid
    except KeyError:
        return Problem(
            group, "there is no such group", f"Create it (`groupadd --system {group}`), or set another group."
        )
    if os.getuid() == account.pw_uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        return Problem(user, "this process is not root and cannot become another user", f"Start as root or as {user}.")
    if account.pw_uid == 0:
        return None
    os.initgroups(user, group_id)
    os.setresgid(group_id, group_id, group_id)
    os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    try:
        os.setuid(0)
    except PermissionError:
        return None
    return Problem(user, "the process could become root again", "Report this as a bug, with the system's name.")


UMASK: Final = 0o027  # other users have no rights to what the node and its programs make
_PR_SET_NO_NEW_PRIVS: Final = 38  # prctl(2)


def restrict() -> Problem | None:
    """For this process and all that it starts: a umask of 027, and no rights beyond those it has now: what it runs
    gets none by set-user-ID bits or file capabilities (prctl(2), PR_SET_NO_NEW_PRIVS). For good."""
    os.umask(UMASK)
    try:
        failed = ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        reason = os.strerror(ctypes.get_errno()) if failed else ""
    except (OSError, AttributeError) as error:
        reason = str(error)
    if not reason:
        return None
    return Problem("prctl", f"new privileges cannot be forbidden: {reason}", "Use Linux 3.5 or newer.")


def raise_file_limit(wanted: int) -> int:
    """Raise the soft limit of open files (RLIMIT_NOFILE) toward `wanted`, the hard one too if we may. What it is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _infinite(soft) or soft >= wanted:
        return wanted if _infinite(soft) else soft
    if not _infinite(hard) and hard < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            return wanted
    reachable = wanted if _infinite(hard) else min(wanted, hard)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
        return reachable
    return soft


def file_limit() -> int:
    """How many files this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if _infinite(soft) else soft


def _infinite(limit: int) -> bool:
    return limit == resource.RLIM_INFINITY


class ServiceManager:
    """What systemd is told (sd_notify(3)), over the socket that NOTIFY_SOCKET names; without one, nothing happens.

    The variables are read, and to be removed from the environment of children by who starts them.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        self._path = "\0" + path[1:] if path.startswith("@") else path  # an abstract name
        usable = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        watchdog_us = environment.get("WATCHDOG_USEC", "") if usable else ""
        # Half the time that the manager waits, as sd_watchdog_enabled(3) advises; 0 for no watchdog.
        self.watchdog_s = int(watchdog_us) / 2_000_000 if watchdog_us.isascii() and watchdog_us.isdigit() else 0.0

    def ready(self, status: str = "") -> bool:
        """Started, or done with reloading."""
        return self._tell("READY=1", status)

    def reloading(self) -> bool:
        """A reload begins; `ready` ends it. The time is what Type=notify-reload asks for."""
        return self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str = "") -> bool:
        return self._tell("STOPPING=1", status)

    def status(self, text: str) -> bool:
        return self._tell("", text)

    def alive(self) -> bool:
        """To be told every `watchdog_s`."""
        return self._tell("WATCHDOG=1")

    def _tell(self, state: str, status: str = "") -> bool:
        """Whether the manager was told."""
        if not self._path:
            return False
        lines = [state] if state else []
        if status:
            lines.append("STATUS=" + status.replace("\n", " "))
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.settimeout(1)
                sock.sendto("\n".join(lines).encode(), self._path)
        except OSError:
            return False
        return True
