"""The node where something goes wrong beside it: TLS changed by a reload, local mail with one permit for all workers,
a blocked log pipe, a supervisor that dies alone."""

from __future__ import annotations

import os
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.harness import maildir, ports
from tests.peers.harness.certificates import Authority
from tests.peers.harness.postroad import Node, alive, local_domain, relay_listener
from tests.peers.harness.process import folder, listens, until


@pytest.fixture
def home() -> Iterator[Path]:
    with folder("faults") as path:
        yield path


def _serial(port: int, authority: Authority) -> str:
    """The serial number of the certificate that is shown under implicit TLS."""
    context = authority.client_context()
    plain = socket.create_connection(("127.0.0.1", port), 10)
    with plain, context.wrap_socket(plain, server_hostname="localhost") as sock:
        certificate = sock.getpeercert()
        assert certificate is not None and sock.recv(100).startswith(b"220")
        return str(certificate["serialNumber"])


def test_a_renewed_certificate_is_taken_under_implicit_tls_after_a_reload_too(home: Path) -> None:
    authority = Authority(home)
    chain, key = authority.certificate("localhost", "127.0.0.1")
    live = home / "live.pem", home / "live.key"

    def install(pair: tuple[Path, Path]) -> None:
        for source, target in zip(pair, live, strict=True):
            shutil.copy(source, f"{target}.new")
            os.replace(f"{target}.new", target)

    install((chain, key))
    node = Node(home / "n", {
        "listener": [relay_listener(ports.port()), relay_listener(ports.port(), name="tls", tls="implicit")],
        "tls": {"certificate": str(live[0]), "key": str(live[1])}, "domain": [local_domain("example.test")],
    })
    with node:
        port = int(node.config["listener"][1]["port"])
        first = _serial(port, authority)
        node.reload()
        node.wait_log("the new configuration is in force")
        install(authority.certificate("localhost", "renewed.test"))
        until(lambda: _serial(port, authority) != first, "the new certificate", within_s=20)
        # Implicit TLS that goes away: nothing in the plain is taken for TLS, and back again.
        del node.config["listener"][1]["tls"]
        node.reload()
        node.wait_log("the new configuration is in force", 2)
        with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
            client.ehlo("x.test")
            assert client.has_extn("starttls")
        node.config["listener"][1]["tls"] = "implicit"
        node.reload()
        node.wait_log("the new configuration is in force", 3)
        assert _serial(port, authority) != first
        with socket.create_connection(("127.0.0.1", port), 10) as plain, pytest.raises((TimeoutError, ssl.SSLError)):
            plain.settimeout(0.5)
            assert plain.recv(100) == b""


def test_local_mail_of_all_workers_arrives_where_one_may_deliver_at_a_time(home: Path) -> None:
    settings = {"queue": {"concurrency": 1}, "domain": [local_domain("example.test")]}
    with Node(home / "n", settings) as node:
        for number in range(30):  # the kernel spreads connections over the workers
            with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
                client.sendmail("b@c.test", ["a@example.test"], f"Subject: {number}\r\n\r\nx\r\n")
        assert len(maildir.wait(node.maildir("a@example.test"), 30)) == 30


def test_a_log_that_nobody_reads_holds_up_nothing(home: Path) -> None:
    node = Node(home / "n", {"domain": [local_domain("example.test")]})
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "postroad", "serve", "--config", str(node.config_path)]
    process = subprocess.Popen(command, stderr=writer, cwd=node.directory)
    try:
        until(lambda: listens("127.0.0.1", node.port), "the node listens")
        with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
            for number in range(300):
                client.sendmail("b@c.test", [f"a{n}@example.test" for n in range(4)], f"Subject: {number}\r\n\r\nx\r\n")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(reader)
        os.close(writer)


def test_workers_without_their_supervisor_end_and_the_next_node_takes_over(home: Path) -> None:
    node = Node(home / "n", {"domain": [local_domain("example.test")]})
    node.start()
    workers = node.workers()
    with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:  # a session that stays open
        client.ehlo("x.test")
        client.mail("b@c.test")
        os.kill(node.pid, signal.SIGKILL)
        node.program.wait()
        until(lambda: not any(map(alive, workers)), "the workers are gone")
        assert client.getreply()[0] == 421  # RFC 5321 §3.8, also from a worker that has lost its supervisor
    node.start()
    node.stop()


def test_a_worker_that_hangs_is_ended_and_started_again(home: Path) -> None:
    node = Node(home / "n", {"worker_hang_s": 10, "domain": [local_domain("example.test")]})
    with node:
        node.wait_log("ready: 2 workers")  # it greets when one of them does
        hung, other = node.workers()
        os.kill(hung, signal.SIGSTOP)
        node.wait_log("has not answered for")
        until(lambda: hung not in node.workers() and len(node.workers()) == 2, "another worker")
        assert other in node.workers()
        for _ in range(8):  # with SO_REUSEPORT some of these go to the new one
            with smtplib.SMTP("127.0.0.1", node.port, timeout=30) as client:
                client.sendmail("a@example.test", ["b@example.test"], "Subject: x\r\n\r\nx\r\n")
        maildir.wait(node.maildir("b@example.test"), 8)
