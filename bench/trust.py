"""What checks and signatures cost, beside Postfix with the programs that do it there: ``python -m bench.trust``.

    python -m bench.trust [--only in|out] [--rounds N] [--quick]

`in`: mail for a domain of ours comes from elsewhere, 4 KB a message, each from another domain, whose records of SPF,
DKIM (RSA-2048) and DMARC are served by Knot on loopback. No domain comes twice to a server in all rounds, so that no
answer is there before. Postroad marks with all checks on; Postfix has policyd-spf, opendkim and opendmarc. Beside them
Postroad with all checks off.

`out`: `smtp-source` sends 4 KB messages of one domain, which are signed and relayed: by Postroad with RSA-2048, with
Ed25519 and not at all, and by Postfix with opendkim (RSA-2048).

The CPU time of a server is that of all its processes, milters and policy daemons among them, without the DNS server.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.peers.harness import need, ports
from tests.peers.harness.knot import Knot
from tests.peers.harness.postroad import Node, next_hop, relay_listener
from tests.peers.harness.process import NotReady
from tests.peers.harness.smtptools import Sink

from bench import filters
from bench.compare import Mode, Server, measure, running, settled_s, used_s, warm
from bench.sending import HELO, Prepared
from postroad.trust.dkim_sign import DkimSigner, SigningKey, SigningOptions, public_record

RATE_MIN, CPU_MAX = 6.0, 0.25  # of Postfix, for what comes in
SIGNED_MIN, ED25519_MIN = 5.0, 0.9  # of Postfix; of mail that is not signed
ROUNDS_MAX: Final = 7
OURS: Final = "recipient@sink.test"
SIGNING: Final = "source.test"  # the domain of what goes out
_COUNTS: Final = {"postroad": 4_000, "postfix": 800}
_QUICK: Final = {"postroad": 1_000, "postfix": 200}
_SESSIONS: Final = 50
_KEYS: Final = 50  # of all domains, each of which has one of them
_LINE: Final = b"This is a line of  words, of usual length, with some white space in it and none at its end.\r\n"
_HEAD: Final = (
    "From: Ada <ada@{domain}>\r\nTo: <recipient@sink.test>\r\nSubject: A message of usual size\r\n"
    "Date: Mon, 1 Dec 2025 14:40:00 +0000\r\nMessage-ID: <1@{domain}>\r\nMIME-Version: 1.0\r\n"
    "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
)
_SIZE: Final = 4_096
_OUT: Final = Mode(
    "out", "4 KB, kept, signed", "messages/s", _SESSIONS, {"*": 10_000, "postfix": 2_500},
    {"*": 3_000, "postfix": 500}, keep=True,
)  # fmt: skip


# -- the world that mail comes from ---------------------------------------------------------------------------


class Senders:
    """Domains with their records, and mail of theirs. Each round has domains of its own; round 0 warms up."""

    def __init__(self, rounds: int, count: int) -> None:
        self._count = count
        self._keys = [generate_private_key(65_537, 2048) for _ in range(_KEYS)]
        self._records = [_strings(public_record(each)) for each in self._keys]
        self.zone = "".join(
            self._lines(f"d{number}x{place}", place) for number in range(rounds + 1) for place in range(count)
        ) + 'client IN A 127.0.0.1\nclient IN TXT "v=spf1 ip4:127.0.0.1 -all"\n'

    def _lines(self, name: str, place: int) -> str:
        return (
            f'{name} IN TXT "v=spf1 ip4:127.0.0.1 -all"\n'
            f"s._domainkey.{name} IN TXT {self._records[place % _KEYS]}\n"
            f'_dmarc.{name} IN TXT "v=DMARC1; p=reject"\n'
        )

    def messages(self, number: int, count: int) -> list[Prepared]:
        """The first mail of a round."""
        return [self._message(f"d{number}x{place}.bench.test", self._keys[place % _KEYS]) for place in range(count)]

    def _message(self, domain: str, key: RSAPrivateKey) -> Prepared:
        head = _HEAD.format(domain=domain).encode()
        content = head + _LINE * ((_SIZE - len(head)) // len(_LINE))
        signer = DkimSigner((SigningKey(domain, "s", key),), SigningOptions())
        return f"ada@{domain}", signer.sign_content(content, int(time.time())) + content


def _strings(record: str) -> str:
    return " ".join(f'"{record[at : at + 250]}"' for at in range(0, len(record), 250))


# -- servers --------------------------------------------------------------------------------------------------


class CheckingNode(Node):
    """Postroad as the MX of a domain whose mail it hands on; `checks` of its listener."""

    def __init__(self, name: str, directory: Path, next_port: int, dns: str, checks: Mapping[str, Any]) -> None:
        self.name = name
        listener = {
            "name": "mx", "address": "127.0.0.1", "port": ports.port(), "role": "mx", "tls": "none", **checks,
        }  # fmt: skip
        settings = {
            "listener": [listener],
            "relay": {"domain": [{"name": "sink.test", "recipients": "any"}]},
            "next_hop": [next_hop("*", next_port)],
            "dns": {"servers": [dns]},
            "checks": {"exempt_networks": []},
        }
        super().__init__(directory, settings, defaults={"hostname": "postroad.test", "state_dir": "state"})


class SigningNode(Node):
    """Postroad as a relay that signs what it sends with this key; without a key it signs nothing."""

    def __init__(self, name: str, directory: Path, next_port: int, key: Path | None) -> None:
        self.name = name
        keys = [{"domain": SIGNING, "selector": "s", "file": str(key)}] if key is not None else []
        settings = {
            "listener": [relay_listener(ports.port(), tls="none")],
            "next_hop": [next_hop("*", next_port)],
            "dkim": {"key": keys},
        }
        super().__init__(directory, settings, defaults={"hostname": "postroad.test", "state_dir": "state"})


@dataclass(frozen=True)
class Figures:
    server: str
    rate: float
    cpu_us: float


def receive(server: Server, kind: str, number: int, senders: Senders, sink: Sink, *, quick: bool) -> Figures:
    """One turn: what comes in in this round."""
    counts = _QUICK if quick else _COUNTS
    count = counts[kind] if number else counts[kind] // 4
    file = need.ROOT / "var" / "bench-messages"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(msgspec.msgpack.encode(senders.messages(number, count)))
    before, cpu_before, started = sink.count, used_s(server), time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "bench.sending", str(server.port), str(_SESSIONS), str(file), OURS],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    if ended.returncode:
        raise NotReady(f"{server.name}: {ended.stderr}\n{server.log()}")
    relayed_s = sink.wait(before + count) - started
    file.unlink()
    return Figures(server.name, count / relayed_s, (settled_s(server) - cpu_before) / count * 1e6)


# -- in and out -----------------------------------------------------------------------------------------------


def come_in(base: Path, rounds: int, *, quick: bool) -> bool:
    counts = _QUICK if quick else _COUNTS
    senders = Senders(rounds, max(counts.values()))
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(Sink())
        address = ports.address()
        zones = {"bench.test": senders.zone, "127.in-addr.arpa": f"1.0.0 IN PTR {HELO.decode()}.\n"}
        stack.enter_context(Knot(base / "knot", zones, address=address, port=53))
        resolv_conf = base / "resolv.conf"
        resolv_conf.write_text(f"nameserver {address}\n")
        off = dict.fromkeys(("spf", "dkim", "dmarc", "arc", "iprev"), "off")
        servers: list[tuple[str, Server]] = [
            ("postroad", CheckingNode("checked", base / "checked", sink.port, f"{address}:53", {})),
            ("postroad", CheckingNode("unchecked", base / "unchecked", sink.port, f"{address}:53", off)),
            ("postfix", filters.FilteringPostfix(
                base / "postfix", sink.port, filters.checking(base / "filters", address, resolv_conf),
                resolv_conf, policyd_spf=True,
                settings={"mynetworks": filters.ELSEWHERE, "relay_domains": "sink.test"},
            )),
        ]
        for _, server in servers:
            stack.enter_context(running(server))
        for kind, server in servers:
            receive(server, kind, 0, senders, sink, quick=quick)
        turns = []
        for number in range(1, rounds + 1):
            for kind, server in servers[:: 1 if number % 2 else -1]:
                turns.append(receive(server, kind, number, senders, sink, quick=quick))
                _tell(number, turns[-1])
    found = _medians(turns)
    ours, other = found["checked"], found["postfix"]
    rate, cpu = ours.rate / other.rate, ours.cpu_us / other.cpu_us
    print(f"in: {rate:.2f} times Postfix (at least {RATE_MIN:g}), {cpu:.3f} of its CPU time (at most {CPU_MAX:g})")
    return rate >= RATE_MIN and cpu <= CPU_MAX


def go_out(base: Path, rounds: int, *, quick: bool) -> bool:
    rsa = _written(base / "rsa.pem", generate_private_key(65_537, 2048))
    ed25519 = _written(base / "ed25519.pem", Ed25519PrivateKey.generate())
    resolv_conf = base / "resolv.conf"
    resolv_conf.write_text("nameserver 192.0.2.1\n")
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(Sink())
        servers: list[Server] = [
            SigningNode("unsigned", base / "unsigned", sink.port, None),
            SigningNode("rsa", base / "rsa", sink.port, rsa),
            SigningNode("ed25519", base / "ed25519", sink.port, ed25519),
            filters.FilteringPostfix(
                base / "signing-postfix", sink.port, filters.signing(base / "signer", SIGNING, "s", rsa, resolv_conf),
                resolv_conf, policyd_spf=False, settings={},
            ),
        ]
        for server in servers:
            stack.enter_context(running(server))
            measure(server, warm(_OUT, server.name), 0, sink, quick=quick)
        turns = []
        for number in range(1, rounds + 1):
            for server in servers[:: 1 if number % 2 else -1]:
                turn = measure(server, _OUT, number, sink, quick=quick)
                turns.append(Figures(turn.server, turn.rate, turn.cpu_us))
                _tell(number, turns[-1])
    found = _medians(turns)
    signed, beside = found["rsa"].rate / found["postfix"].rate, found["ed25519"].rate / found["unsigned"].rate
    cpu = found["rsa"].cpu_us / found["postfix"].cpu_us
    print(f"out: RSA-2048 {signed:.2f} times Postfix (at least {SIGNED_MIN:g}), {cpu:.3f} of its CPU time")
    print(f"out: Ed25519 {beside:.2f} of the rate without signatures (at least {ED25519_MIN:g})")
    return signed >= SIGNED_MIN and beside >= ED25519_MIN


def _written(file: Path, key: RSAPrivateKey | Ed25519PrivateKey) -> Path:
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    file.chmod(0o600)
    return file


def _tell(number: int, turn: Figures) -> None:
    print(f"  round {number}  {turn.server:<10}{turn.rate:>9.1f}/s {turn.cpu_us:>9.1f} µs CPU each", flush=True)


def _medians(turns: Sequence[Figures]) -> dict[str, Figures]:
    found = {}
    for name in dict.fromkeys(each.server for each in turns):
        its = [each for each in turns if each.server == name]
        rate, cpu_us = (statistics.median(getattr(each, what) for each in its) for what in ("rate", "cpu_us"))
        found[name] = Figures(name, rate, cpu_us)
    for each in found.values():
        print(f"{each.server:<10}{each.rate:>9.0f}/s{each.cpu_us:>9.0f} µs")
    return found



def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("in", "out"), help="one of the two")
    parser.add_argument("--rounds", type=int, default=3, choices=range(1, ROUNDS_MAX + 1))
    parser.add_argument("--quick", action="store_true", help="one round, few messages: a look, not a result")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="where the queues stand: a real disk")
    asked = parser.parse_args()
    if os.geteuid() != 0 or need.find("opendmarc") is None:
        print("bench: only root can start Postfix and the others; `make peers` installs them", file=sys.stderr)
        return 1
    rounds = 1 if asked.quick else asked.rounds
    with tempfile.TemporaryDirectory(prefix="postroad-bench-", dir=asked.folder) as base:
        Path(base).chmod(0o755)
        reached = [
            compare(Path(base), rounds, quick=asked.quick)
            for name, compare in (("in", come_in), ("out", go_out)) if asked.only in (None, name)
        ]
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
