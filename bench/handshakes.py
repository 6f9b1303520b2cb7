"""TLS handshakes per second of Postfix and Postroad, in one run: ``python -m bench.handshakes``, part of `make bench`.

Each client connects, says EHLO and STARTTLS, does a whole handshake (no session is taken up again), says EHLO within
TLS, QUIT, and comes again. Both servers have the same certificate, their own default ciphers and groups, and no mail to
carry. The figures: sessions per second, and the CPU time of all the server's processes for each.
"""

from __future__ import annotations

import argparse
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trustme
from tests.peers.harness import need, ports
from tests.peers.harness.postfix import Postfix
from tests.peers.harness.postroad import Node, relay_listener
from tests.peers.harness.process import own_to

from bench.processes import cpu_s

KEYS: Final = {"rsa": trustme.KeyType.RSA, "ecdsa": trustme.KeyType.ECDSA}
_CLIENTS: Final = 8  # processes, each with one session at a time


@dataclass(frozen=True)
class Handshakes:
    """Sessions per second and CPU µs for each, medians of the rounds, by server."""

    key: str
    postfix: tuple[float, float]
    postroad: tuple[float, float]

    def __str__(self) -> str:
        (their_rate, their_cpu), (our_rate, our_cpu) = self.postfix, self.postroad
        return (
            f"TLS handshakes ({self.key}): Postfix {their_rate:.0f}/s, {their_cpu:.0f} µs CPU each; Postroad "
            f"{our_rate:.0f}/s, {our_cpu:.0f} µs; ratio {our_rate / their_rate:.2f}, CPU {our_cpu / their_cpu:.2f}"
        )


def measure(base: Path, *, key: str = "rsa", count: int = 1_600, rounds: int = 3) -> Handshakes:
    """`count`: sessions of each turn. Bounded by them: some seconds a turn."""
    chain, private = _certificate(base, KEYS[key])
    postfix = Postfix(base / f"postfix-{key}", settings={
        "smtpd_tls_cert_file": str(chain), "smtpd_tls_key_file": str(private), "smtpd_tls_security_level": "may",
        "smtpd_client_connection_count_limit": "0", "smtpd_client_connection_rate_limit": "0",
    })
    listener = relay_listener(ports.port(), tls="starttls")
    node = Node(base / f"postroad-{key}", {"listener": [listener]}, defaults={
        "hostname": "postroad.test", "state_dir": "state", "tls": {"certificate": str(chain), "key": str(private)},
    })
    turns: dict[str, list[tuple[float, float]]] = {"postfix": [], "postroad": []}
    postfix.start()
    try:
        with node:
            for number in range(rounds + 1):
                for name, server in (("postfix", postfix), ("postroad", node)):
                    found = _turn(server.port, server.pid, count if number else count // 10)
                    if number:  # the first one is to warm up
                        turns[name].append(found)
    finally:
        postfix.stop()
    return Handshakes(key, _median(turns["postfix"]), _median(turns["postroad"]))


def _median(turns: list[tuple[float, float]]) -> tuple[float, float]:
    rates, cpus = zip(*turns, strict=True)
    return round(statistics.median(rates), 1), round(statistics.median(cpus), 1)


def _certificate(base: Path, kind: trustme.KeyType) -> tuple[Path, Path]:
    issued = trustme.CA(key_type=kind).issue_cert("bench.test", key_type=kind)
    chain, private = base / f"{kind.name}.pem", base / f"{kind.name}.key"
    issued.private_key_pem.write_to_path(str(private))
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    own_to(private, "postfix")
    private.chmod(0o644)  # a test key: each server reads it as a user of its own
    return chain, private


def _turn(port: int, pid: int, count: int) -> tuple[float, float]:
    each = max(1, count // _CLIENTS)
    command = [sys.executable, "-m", "bench.handshakes", "--client", str(port), str(each)]
    clients = [
        subprocess.Popen(command, cwd=need.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(_CLIENTS)
    ]
    try:
        for client in clients:  # their start is not what is measured
            assert client.stdout is not None
            client.stdout.readline()
        before, started = cpu_s(pid), time.monotonic()
        for client in clients:
            assert client.stdin is not None
            client.stdin.close()
        codes = [client.wait(timeout=120) for client in clients]
        if any(codes):
            raise RuntimeError("a client failed")
        took_s = time.monotonic() - started
    finally:
        for client in clients:
            client.kill()
            client.wait()
    time.sleep(0.5)
    done = each * _CLIENTS
    return done / took_s, (cpu_s(pid) - before) / done * 1e6


def _client(port: int, count: int) -> None:
    print("ready", flush=True)
    sys.stdin.read()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", port), 30) as plain:
            _say(plain, b"", b"220")
            _say(plain, b"EHLO bench.test\r\n", b"250")
            _say(plain, b"STARTTLS\r\n", b"220")
            with context.wrap_socket(plain) as secure:
                _say(secure, b"EHLO bench.test\r\n", b"250")
                _say(secure, b"QUIT\r\n", b"221")


def _say(connection: socket.socket, line: bytes, wanted: bytes) -> None:
    if line:
        connection.sendall(line)
    answer = b""
    while not answer.endswith(b"\r\n") or answer[answer.rfind(b"\n", 0, -1) + 4 :][:1] == b"-":
        octets = connection.recv(4096)
        if not octets:
            raise ConnectionError(f"closed after {answer!r}")
        answer += octets
    if not answer.startswith(wanted):
        raise ConnectionError(f"{line!r} was answered {answer!r}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--key", choices=list(KEYS), default="rsa", help="kind of key (rsa, 2048 bits)")
    parser.add_argument("--count", type=int, default=1_600, help="sessions of each turn (1600)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--client", nargs=2, type=int, metavar=("PORT", "COUNT"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.client:
        _client(*asked.client)
        return 0
    if need.find("postfix") is None or os.geteuid() != 0:
        print("handshakes: Postfix must be installed, and can only be started by root", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="postroad-tls-", dir="/var/tmp") as base:
        Path(base).chmod(0o755)
        print(measure(Path(base), key=asked.key, count=asked.count, rounds=asked.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
