"""A private Unbound: a recursive DNS server that validates by DNSSEC, over a Knot for the zones of a test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rrset

from tests.peers.harness import need, ports
from tests.peers.harness.process import Program, until

_CONFIG = """\
server:
    interface: 127.0.0.1
    port: {port}
    do-daemonize: no
    username: ""
    chroot: ""
    directory: "{directory}"
    pidfile: ""
    use-syslog: no
    do-not-query-localhost: no
    module-config: "validator iterator"
{anchors}    access-control: 127.0.0.0/8 allow
    prefetch: no
    local-zone: "example." nodefault
    local-zone: "test." nodefault
{lines}remote-control:
    control-enable: no
{zones}"""


class Unbound:
    """Asks the servers in `zones` (name → port on this machine). `anchors`: DNSKEY records to trust. `lines`: more of
    its settings. `ready`: a name in these zones that has an answer of MX records."""

    def __init__(
        self, directory: Path, zones: Mapping[str, int], anchors: Iterable[str] = (), *, ready: str,
        lines: Iterable[str] = (),
    ) -> None:
        self.port = ports.port()
        directory.mkdir()
        stubs = "".join(
            f'stub-zone:\n    name: "{zone}"\n    stub-addr: 127.0.0.1@{port}\n' for zone, port in zones.items()
        )
        config = directory / "unbound.conf"
        trusted = "".join(f'    trust-anchor: "{anchor}"\n' for anchor in anchors)
        more = "".join(f"    {line}\n" for line in lines)
        config.write_text(
            _CONFIG.format(port=self.port, directory=directory, zones=stubs, anchors=trusted, lines=more)
        )
        self._ready = ready
        self._program = Program([need.program("unbound"), "-d", "-c", str(config)], directory / "unbound.log")

    def __enter__(self) -> Unbound:
        self._program.start()
        self._program.ready(self._answers, "unbound answers")
        return self

    def __exit__(self, *_: object) -> None:
        self._program.stop()

    def _answers(self) -> bool:
        try:
            answer = dns.query.udp(dns.message.make_query(self._ready, "MX"), "127.0.0.1", 0.3, self.port)
        except (OSError, dns.exception.DNSException):
            return False
        return bool(answer.answer)


def anchors(zone: str, port: int) -> list[str]:
    """The keys of a signed zone, once its server on this machine has signed it."""

    def keys() -> list[dns.rrset.RRset]:
        question = dns.message.make_query(zone, "DNSKEY")
        return list(dns.query.udp(question, "127.0.0.1", 20, port).answer)

    until(keys, f"the zone {zone} is signed")
    return [f"{rrset.name} {rrset.ttl} IN DNSKEY {key}" for rrset in keys() for key in rrset]
