"""Floods of cheap commands beside one honest client: ``python -m bench.floods``.

For each kind of flood 20 sessions send one command again and again, pipelined, as fast as one worker takes it, and come
again when they are turned out. Beside them one honest client connects, sends a message of 4 KB, and measures how long
it takes from the beginning of its connection to the 250 behind its content. The figures: median and worst of its
messages; and what shows that the flood was one: the replies and sessions that it got.

The flood comes from an address that is exempt from bans, which is the worst case.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trustme
from tests.peers.harness import need, ports
from tests.peers.harness.postroad import Node, local_domain, mx_listener

from bench.processes import memory

SESSIONS: Final = 20
TARGET_MS: Final = 100.0
_BLOCK: Final = 65_536
_EHLO: Final = "EHLO flood.test"
_BEGUN: Final = (_EHLO, "MAIL FROM:<flood@flood.test>", "RCPT TO:<ann@local.test>")


@dataclass(frozen=True)
class Kind:
    """`before`: lines that are each answered before the flood begins. `flood`: what is sent without end."""

    flood: bytes
    before: tuple[str, ...] = (_EHLO,)
    lmtp: bool = False


def _line(text: str, *before: str, lmtp: bool = False) -> Kind:
    return Kind(text.encode() + b"\r\n", before or (_EHLO,), lmtp)


KINDS: Final = {
    "nothing": Kind(b""),
    "NOOP": _line("NOOP"),
    "RSET": _line("RSET"),
    "EHLO": _line(_EHLO),
    "HELO": _line("HELO flood.test"),
    "VRFY": _line("VRFY ann"),
    "EXPN": _line("EXPN staff"),
    "HELP": _line("HELP"),
    "MAIL, refused": _line("MAIL FROM:<ann@>"),
    "MAIL and RSET": Kind(b"MAIL FROM:<flood@flood.test>\r\nRSET\r\n"),
    "MAIL again": _line("MAIL FROM:<flood@flood.test>"),
    "RCPT, refused": _line("RCPT TO:<x@elsewhere.test>", *_BEGUN[:2]),
    "RCPT, unknown": _line("RCPT TO:<nobody@local.test>", *_BEGUN[:2]),
    "RCPT beyond recipients_max": _line("RCPT TO:<ann@local.test>", *_BEGUN, *_BEGUN[2:] * 999),
    "RCPT, known, and RSET": Kind(
        b"MAIL FROM:<flood@flood.test>\r\n" + b"RCPT TO:<ann@local.test>\r\n" * 1000 + b"RSET\r\n"
    ),
    "BDAT 0": _line("BDAT 0", *_BEGUN),
    "BDAT 1": Kind(b"BDAT 1\r\nx", _BEGUN),
    "BDAT 2": Kind(b"BDAT 2\r\n\r\n", _BEGUN),
    "BDAT, refused": Kind(b"BDAT 1\r\nx"),
    "DATA, refused": _line("DATA"),
    "unknown": _line("XYZZY"),
    "empty lines": _line(""),
    "a line without end": Kind(b"x" * _BLOCK),
    "AUTH, garbage": _line("AUTH PLAIN !"),
    "AUTH, a wrong password": _line("AUTH PLAIN AGFubgB3cm9uZw=="),
    "ETRN": _line("ETRN local.test"),
    "XCLIENT": _line("XCLIENT ADDR=192.0.2.1"),
    "QUIT": _line("QUIT"),
    "LMTP: LHLO": _line("LHLO flood.test", "LHLO flood.test", lmtp=True),
    "LMTP: NOOP": _line("NOOP", "LHLO flood.test", lmtp=True),
    "LMTP: EHLO": _line(_EHLO, "LHLO flood.test", lmtp=True),
    "LMTP: BDAT 1": Kind(b"BDAT 1\r\nx", ("LHLO flood.test", *_BEGUN[1:]), lmtp=True),
}


@dataclass(frozen=True)
class Found:
    """What the honest client saw, in ms; `replies` and `sessions` of the flood in a second."""

    kind: str
    tls: bool
    median_ms: float
    worst_ms: float
    replies: float
    sessions: float
    memory_mb: float

    def __str__(self) -> str:
        name = f"{self.kind}{' (TLS)' if self.tls else ''}"
        return (
            f"{name:36} median {self.median_ms:6.1f} ms, worst {self.worst_ms:6.1f} ms; the flood got "
            f"{self.replies:7.0f} replies and {self.sessions:5.0f} sessions/s; memory {self.memory_mb:.0f} MB"
        )


def node(base: Path) -> Node:
    """One worker; listeners for SMTP, SMTP under TLS and LMTP."""
    issued = trustme.CA().issue_cert("bench.test")
    chain, private = base / "cert.pem", base / "key.pem"
    issued.private_key_pem.write_to_path(str(private))
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    common = {"auth": True, "auth_without_tls": True}
    made = Node(base / "node", {
        "workers": 1,
        "listener": [
            mx_listener(ports.port(), **common),
            mx_listener(ports.port(), tls="implicit", **common) | {"name": "tls"},
            {"name": "lmtp", "protocol": "lmtp", "role": "mx", "address": "127.0.0.1", "port": ports.port()},
        ],
        "domain": [local_domain("local.test", ["ann"])],
        "auth": {"users": str(base / "users")},
        "tls": {"certificate": str(chain), "key": str(private)},
    }, defaults={"hostname": "postroad.test", "state_dir": "state"})  # fmt: skip
    made.add_user("ann", "a right password", "ann@local.test")
    return made


def measure(server: Node, kind: str, *, tls: bool = False, messages: int = 40) -> Found:
    """Bounded by the messages: a few seconds."""
    chosen = KINDS[kind]
    port = int(server.config["listener"][2 if chosen.lmtp else 1 if tls else 0]["port"])
    command = [sys.executable, "-m", "bench.floods", "--client", str(port), kind, *(["--tls"] if tls else [])]
    flood = subprocess.Popen(command, cwd=need.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert flood.stdin is not None and flood.stdout is not None
        flood.stdout.readline()  # all its sessions are there
        taken: list[float] = []
        for _ in range(messages):
            taken.append(_honest(server.port) * 1e3)
            time.sleep(0.02)
        octets = max(memory(pid) for pid in server.workers())
        flood.stdin.close()
        told = json.loads(flood.stdout.readline())
        flood.wait(30)
    finally:
        flood.kill()
        flood.wait()
    return Found(
        kind, tls, round(statistics.median(taken), 1), round(max(taken), 1), round(told["replies"] / told["s"]),
        round(told["sessions"] / told["s"]), octets / 1e6,
    )


def _honest(port: int) -> float:
    """Seconds from the connection to the 250 of a message of 4 KB."""
    content = b"Subject: honest\r\n\r\n" + (b"x" * 70 + b"\r\n") * 56 + b".\r\n"
    started = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), 60) as client, client.makefile("rb") as answers:
        for octets, wanted in (
            (b"", b"220"), (b"EHLO honest.test\r\n", b"250"), (b"MAIL FROM:<bob@honest.test>\r\n", b"250"),
            (b"RCPT TO:<ann@local.test>\r\n", b"250"), (b"DATA\r\n", b"354"), (content, b"250"),
        ):  # fmt: skip
            client.sendall(octets)
            line = answers.readline()
            while line[3:4] == b"-":
                line = answers.readline()
            if not line.startswith(wanted):
                raise ConnectionError(f"{octets[:40]!r} was answered {line!r}")
        return time.perf_counter() - started


# ---- the flood, in a process of its own


@dataclass
class _Flood:
    """All its sessions. `replies`: lines that came back, about."""

    port: int
    kind: Kind
    context: ssl.SSLContext | None
    replies: int = 0
    begun: int = 0
    rest: dict[socket.socket, memoryview] = field(default_factory=dict)
    before: dict[socket.socket, list[bytes]] = field(default_factory=dict)

    def run(self) -> None:
        self._block = memoryview(self.kind.flood * (_BLOCK // max(1, len(self.kind.flood)) + 1))
        for _ in range(SESSIONS):
            self._begin()
        ended = False
        started = time.monotonic()
        told = False
        while not ended:
            if not told and (not any(self.before.values()) or time.monotonic() > started + 10):
                print("ready", flush=True)
                self.replies, self.begun, started, told = 0, 0, time.monotonic(), True
            eager = [each for each in self.rest if self._block and not self.before[each]]
            readable, writable, _ = select.select([sys.stdin, *self.rest], eager, [], 0.2)
            for each in readable:
                if each is sys.stdin:
                    ended = True
                elif isinstance(each, socket.socket):
                    self._read(each)
            for each in writable:
                if each in self.rest:
                    self._write(each)
        print(json.dumps({"replies": self.replies, "sessions": self.begun, "s": time.monotonic() - started}))

    def _begin(self) -> None:
        for _ in range(200):
            try:
                plain = socket.create_connection(("127.0.0.1", self.port), 30, source_address=("127.0.0.2", 0))
                client = plain if self.context is None else self.context.wrap_socket(plain)
                break
            except OSError:
                time.sleep(0.01)
        client.setblocking(False)
        self.begun += 1
        self.rest[client] = self._block
        self.before[client] = [line.encode() + b"\r\n" for line in ("", *self.kind.before)]

    def _read(self, client: socket.socket) -> None:
        try:
            octets = client.recv(_BLOCK)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError:
            octets = b""
        if not octets:
            self._end(client)
            return
        self.replies += octets.count(b"\n")
        waiting = self.before[client]
        if waiting and octets.endswith(b"\r\n"):  # one more step of what comes before the flood
            waiting.pop(0)
            if waiting:
                self._send(client, memoryview(waiting[0]))

    def _write(self, client: socket.socket) -> None:
        sent = self._send(client, self.rest[client])
        if client in self.rest:
            self.rest[client] = self.rest[client][sent:] or self._block

    def _send(self, client: socket.socket, octets: memoryview) -> int:
        try:
            return client.send(octets)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0
        except OSError:
            self._end(client)
            return 0

    def _end(self, client: socket.socket) -> None:
        if self.rest.pop(client, None) is not None:
            self.before.pop(client)
            client.close()
            self._begin()


def _flood(port: int, kind: str, *, tls: bool) -> None:
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    _Flood(port, KINDS[kind], context).run()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="only this one; may be repeated")
    parser.add_argument("--messages", type=int, default=40, help="of the honest client, beside each flood (40)")
    parser.add_argument("--tls", action="store_true", help="the floods come under TLS")
    parser.add_argument("--client", nargs=2, metavar=("PORT", "KIND"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.client:
        _flood(int(asked.client[0]), asked.client[1], tls=asked.tls)
        return 0
    worst = 0.0
    with tempfile.TemporaryDirectory(prefix="postroad-floods-", dir="/var/tmp") as base:
        Path(base).chmod(0o755)
        with node(Path(base)) as server:
            for kind in asked.kind or KINDS:
                if not (asked.tls and KINDS[kind].lmtp):
                    found = measure(server, kind, tls=asked.tls, messages=asked.messages)
                    print(found, flush=True)
                    worst = max(worst, found.median_ms)
    print(f"worst median {worst:.1f} ms, target {TARGET_MS:.0f} ms")
    return 0 if worst < TARGET_MS else 1


if __name__ == "__main__":
    sys.exit(main())
