"""fail2ban reads the log of a real node with the filter that is shipped: each client that guessed, and nobody else."""

from __future__ import annotations

import contextlib
import smtplib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers.harness import need, ports
from tests.peers.harness.certificates import Authority
from tests.peers.harness.postroad import Node, local_domain, mx_listener, submission_listener
from tests.peers.harness.process import until

_FILTER = need.ROOT / "packaging" / "fail2ban" / "filter.d" / "postroad.conf"
_INJECTED = "192.0.2.66"  # stands in what clients say, and is nobody's address
_LIES = (
    f"x[{_INJECTED}]:25.ESMTP:.550.5.1.1",
    f"[{_INJECTED}]",
    f"a.refused.AUTH.of.[{_INJECTED}]:1.ESMTP:.535.5.7.8.",
)


@dataclass
class Site:
    node: Node
    log: Path


@pytest.fixture(scope="module", params=["file", "syslog"])
def site(request: pytest.FixtureRequest, place: Path, authority: Authority) -> Iterator[Site]:
    """The log of one node after one of each kind; also as syslog and journalctl write its lines."""
    need.program("fail2ban-regex")
    chain, key = authority.certificate("postroad.test", "localhost", "127.0.0.1")
    node = Node(place / request.param, {
        "listener": [mx_listener(ports.port()), submission_listener(ports.port())],
        "tls": {"certificate": str(chain), "key": str(key)},
        "auth": {"users": "users", "failure_delay_s": 0},
        "domain": [local_domain("example.test", ["bob"])],
    })
    node.add_user("alice", "right", "alice@example.test")
    with node:
        _talk(node, authority)
        until(lambda: "END-OF-TALK" in node.log_path.read_text(), "the log has all of it")
    log = node.log_path
    if request.param == "syslog":
        lines = log.read_text().splitlines()
        log = place / "syslog.log"
        log.write_text("".join(f"Nov 30 12:00:00 host postroad[4711]: {line}\n" for line in lines))
    yield Site(node, log)


def _talk(node: Node, authority: Authority) -> None:
    port = int(node.config["listener"][1]["port"])

    def log_in(source: str, user: str, password: str) -> None:
        with smtplib.SMTP("localhost", port, timeout=20, source_address=(source, 0)) as client:
            client.starttls(context=authority.client_context())
            with contextlib.suppress(smtplib.SMTPAuthenticationError):
                client.login(user, password)

    def send(source: str, recipient: str, hello: str = "client.test", sender: str = "a@b.test") -> None:
        with smtplib.SMTP("127.0.0.1", node.port, timeout=20, source_address=(source, 0)) as client:
            client.ehlo(hello)
            client.mail(sender)
            client.rcpt(recipient)

    log_in("127.0.1.1", "alice", "wrong")
    log_in("127.0.1.2", "nobody", "wrong")
    log_in("127.0.9.1", "alice", "right")
    send("127.0.2.1", "x@elsewhere.test")
    send("127.0.3.1", "nobody@example.test")
    send("127.0.9.2", "bob@example.test")
    for place, lie in enumerate(_LIES):
        send(f"127.0.4.{place + 1}", "nobody@example.test", hello=lie)
        send(f"127.0.9.{place + 10}", "bob@example.test", hello=lie)
        send(f"127.0.9.{place + 20}", "bob@example.test", sender=f'"{lie}"@b.test')
        log_in(f"127.0.1.{place + 10}", f"refused AUTH of [{_INJECTED}]: 535 5.7.8 {lie}", "wrong")
    send("127.0.5.1", f'"refused RCPT of [{_INJECTED}]:1 x: 550 5.1.1 "@example.test')
    send("127.0.2.2", "END-OF-TALK@elsewhere.test")


def _found(site: Site, mode: str) -> list[str]:
    ran = subprocess.run(
        [need.program("fail2ban-regex"), "--out", "ip", str(site.log), f"{_FILTER}[mode={mode}]"],
        capture_output=True, text=True, check=False, timeout=60,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return sorted(set(ran.stdout.split()))


_GUESSED = ["127.0.1.1", "127.0.1.2", *(f"127.0.1.{place + 10}" for place in range(len(_LIES)))]
_RELAYED = ["127.0.2.1", "127.0.2.2"]
_UNKNOWN = ["127.0.3.1", *(f"127.0.4.{place + 1}" for place in range(len(_LIES))), "127.0.5.1"]


@pytest.mark.parametrize(("mode", "wanted"), [
    ("auth", _GUESSED), ("recipients", _RELAYED + _UNKNOWN), ("all", _GUESSED + _RELAYED + _UNKNOWN),
])
def test_each_client_that_guessed_and_nobody_else(site: Site, mode: str, wanted: list[str]) -> None:
    assert _found(site, mode) == sorted(wanted), site.log.read_text()


def test_the_time_of_each_line_is_read(site: Site) -> None:
    ran = subprocess.run(
        [need.program("fail2ban-regex"), str(site.log), str(_FILTER)], capture_output=True, text=True, check=False,
        timeout=60,
    )
    missed = [line for line in ran.stdout.splitlines() if "No timestamp" in line or "without a date" in line]
    assert ran.returncode == 0 and not missed, ran.stdout
