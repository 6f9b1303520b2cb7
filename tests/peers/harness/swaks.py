"""swaks, the Swiss army knife for SMTP: one run, its exit code and the whole dialog."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from functools import cache

from tests.peers.harness import need


@dataclass(frozen=True)
class Ran:
    """`transcript` is what swaks printed: ``->`` marks what it sent, ``<-`` what the server said; with ``~`` in TLS."""

    code: int
    transcript: str

    def replies(self) -> list[str]:
        """What the server said, line by line."""
        marks = ("<- ", "<~ ", "<**", "<~*")
        return [line[3:].strip() for line in self.transcript.splitlines() if line.startswith(marks)]


@cache
def _has_tls() -> bool:
    return subprocess.run(["perl", "-MNet::SSLeay", "-e", "1"], capture_output=True, check=False).returncode == 0


def swaks(port: int, *arguments: str, within_s: float = 60.0) -> Ran:
    """Runs swaks against 127.0.0.1:`port`."""
    program = need.program("swaks")
    if any(each.startswith("--tls") for each in arguments) and not _has_tls():
        need.missing("swaks has no TLS: the Perl module Net::SSLeay is not installed (make peers installs it)")
    ended = subprocess.run(
        [program, "--server", f"127.0.0.1:{port}", "--timeout", "40", *arguments],
        capture_output=True, text=True, check=False, timeout=within_s, errors="replace",
    )
    return Ran(ended.returncode, ended.stdout + ended.stderr)
