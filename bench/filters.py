"""What stands beside Postfix so that it verifies and signs: opendkim, opendmarc (milters) and policyd-spf, of Debian.

All of them ask the DNS server of the bench: opendkim is told its address, the others find it in an /etc/resolv.conf of
their own. Their other settings are those of Debian, without what would leave out mail of this machine.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.peers.harness import need, ports
from tests.peers.harness.process import Program, listens

from bench.servers import PostfixServer

ELSEWHERE: Final = "192.0.2.1"  # nobody's: whom a filter would leave out


class Filter:
    """A milter on 127.0.0.1:`port`."""

    def __init__(self, name: str, directory: Path, lines: Sequence[str], resolv_conf: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.port = ports.port()
        self.address = f"inet:127.0.0.1:{self.port}"
        config = directory / f"{name}.conf"
        config.write_text("\n".join((*lines, f"Socket inet:{self.port}@127.0.0.1", "UserID root", "")))
        command = [need.program(name), "-f", "-x" if name == "opendkim" else "-c", str(config)]
        self.program = Program(in_resolver(resolv_conf, command), directory / f"{name}.log")

    def start(self) -> None:
        self.program.start()
        self.program.ready(lambda: listens("127.0.0.1", self.port), "the milter listens")


def in_resolver(resolv_conf: Path, command: Sequence[str]) -> list[str]:
    """The command with an /etc/resolv.conf of its own; the process keeps its id."""
    script = f"mount --bind {shlex.quote(str(resolv_conf))} /etc/resolv.conf && exec {shlex.join(command)}"
    return ["unshare", "--mount", "sh", "-c", script]


def checking(directory: Path, dns: str, resolv_conf: Path) -> list[Filter]:
    """opendkim and opendmarc, which verify what comes in."""
    directory.mkdir(parents=True)
    nobody = directory / "nobody"
    nobody.write_text(f"{ELSEWHERE}\n")
    dkim = (
        "Mode v", "Syslog yes", "Canonicalization relaxed/simple", f"Nameservers {dns}",
        f"InternalHosts {nobody}", "AuthservID postfix.test",
    )  # fmt: skip
    dmarc = (
        "AuthservID postfix.test", "TrustedAuthservIDs postfix.test", f"IgnoreHosts {nobody}", "Syslog true",
        "RejectFailures false", "SPFIgnoreResults false", "SPFSelfValidate false",
    )  # fmt: skip
    return [
        Filter("opendkim", directory, dkim, resolv_conf), Filter("opendmarc", directory, dmarc, resolv_conf),
    ]  # fmt: skip


def signing(directory: Path, domain: str, selector: str, key: Path, resolv_conf: Path) -> list[Filter]:
    """opendkim, which signs mail of this machine."""
    lines = (
        "Mode s", "Syslog yes", "Canonicalization relaxed/simple", "OversignHeaders From", f"Domain {domain}",
        f"Selector {selector}", f"KeyFile {key}", "RequireSafeKeys no", "InternalHosts 127.0.0.1",
    )  # fmt: skip
    return [Filter("opendkim", directory, lines, resolv_conf)]


class FilteringPostfix(PostfixServer):
    """Postfix with milters; with `policyd_spf` also with that. `beside`: the
    processes of the milters, whose CPU time counts, too."""

    def __init__(
        self, directory: Path, next_port: int, filters: Sequence[Filter], resolv_conf: Path, *, policyd_spf: bool,
        settings: Mapping[str, str],
    ) -> None:
        self._filters = filters
        services: list[str] = []
        restrictions = "permit_mynetworks, reject_unauth_destination"
        if policyd_spf:
            config = directory / "policyd-spf.conf"
            directory.mkdir(parents=True, exist_ok=True)
            config.write_text(
                "debugLevel = 1\nTestOnly = 1\nHELO_reject = False\nMail_From_reject = False\n"
                f"skip_addresses = {ELSEWHERE}/32\n"
            )
            services.append(f"policyd-spf unix - n n - 0 spawn user=nobody argv={need.program('policyd-spf')} {config}")
            restrictions += ", check_policy_service unix:private/policyd-spf"
        milters = ", ".join(each.address for each in filters)
        super().__init__(directory, next_port, {
            "smtpd_milters": milters, "smtpd_recipient_restrictions": restrictions, "policyd-spf_time_limit": "3600",
            **settings,
        }, services)
        wrapper = directory / "postfix"
        inner = f'mount --bind {resolv_conf} /etc/resolv.conf && exec {self._postfix} "$@"'
        wrapper.write_text(f"#!/bin/sh\nexec unshare --mount sh -c {shlex.quote(inner)} sh \"$@\"\n")
        wrapper.chmod(0o755)
        self._postfix = str(wrapper)

    def start(self) -> None:
        for each in self._filters:
            each.start()
        super().start()

    def stop(self) -> None:
        super().stop()
        for each in self._filters:
            each.program.stop()

    def log(self, lines_max: int = 60) -> str:
        beside = (f"{each.name} ended with {each.program.exit_code}: {each.program.log()}" for each in self._filters)
        return "\n".join((super().log(lines_max), *beside))

    @property
    def beside(self) -> list[int]:
        return [each.program.pid for each in self._filters]
