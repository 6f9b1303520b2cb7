"""A private Knot DNS server that answers for zones written in a test."""

from __future__ import annotations

import signal
from collections.abc import Collection, Mapping
from pathlib import Path

import dns.exception
import dns.message
import dns.query

from tests.peers.harness import need, ports
from tests.peers.harness.process import Program, tail, until

_CONFIG = """\
server:
    listen: {address}@{port}
    rundir: {directory}/run
    automatic-acl: off
database:
    storage: {directory}/db
log:
  - target: stderr
    any: info
template:
  - id: default
    storage: {directory}/zones
    file: "%s.zone"
    zonefile-sync: -1
    journal-content: none
zone:
{zones}"""

_HEAD = """\
$TTL 60
@ IN SOA ns.{zone}. admin.{zone}. {serial} 60 60 60 {negative_s}
@ IN NS ns.{zone}.
ns IN A 127.0.0.1
"""


class Knot:
    """One instance on `address`:`port`. `zones`: name → lines of the zone file behind SOA and NS. `signed`: those of
    them that Knot signs (DNSSEC)."""

    def __init__(
        self, directory: Path, zones: Mapping[str, str], signed: Collection[str] = (), *, address: str = "127.0.0.1",
        port: int = 0, negative_s: int = 60,
    ) -> None:
        self.address = address
        self.port = port or ports.port()
        for name in ("run", "db", "zones"):
            (directory / name).mkdir(parents=True)
        self._directory = directory
        self._negative_s = negative_s
        self._serial = 0
        for zone, lines in zones.items():
            self._write(zone, lines)
        config = directory / "knot.conf"
        signing = "    dnssec-signing: on\n"
        entries = "".join(f"  - domain: {zone}\n" + signing * (zone in signed) for zone in zones)
        config.write_text(_CONFIG.format(address=address, port=self.port, directory=directory, zones=entries))
        self._zones = list(zones)
        self._log = directory / "knot.log"
        self._program = Program([need.program("knotd"), "-c", str(config)], self._log)

    def _write(self, zone: str, lines: str) -> None:
        self._serial += 1
        head = _HEAD.format(zone=zone, serial=self._serial, negative_s=self._negative_s)
        # What stands within parentheses may be indented; at its beginning, a line that is would have no name.
        text = head + "\n".join(line.strip() for line in lines.splitlines()) + "\n"
        (self._directory / "zones" / f"{zone}.zone").write_text(text)

    def change(self, zone: str, lines: str) -> None:
        """Other lines for a zone, and wait until Knot has them."""
        self._write(zone, lines)
        self._program.signal(signal.SIGHUP)
        until(lambda: self._serial_of(zone) == self._serial, f"Knot has the new zone\n{self.log()}")

    def _serial_of(self, zone: str) -> int:
        try:
            answer = dns.query.udp(dns.message.make_query(zone, "SOA"), self.address, 0.3, self.port)
        except (TimeoutError, OSError, dns.exception.DNSException):
            return 0
        return next((int(record.serial) for found in answer.answer for record in found), 0)

    def start(self) -> None:
        self._program.start()
        self._program.ready(lambda: all(map(self._answers, self._zones)), "knot answers for its zones")

    def stop(self) -> None:
        self._program.stop()

    def _answers(self, zone: str) -> bool:
        try:
            answer = dns.query.udp(dns.message.make_query(zone, "SOA"), self.address, 0.3, self.port)
        except (TimeoutError, OSError, dns.exception.DNSException):
            return False
        return bool(answer.answer)

    def log(self) -> str:
        return tail(self._log)

    def __enter__(self) -> Knot:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
