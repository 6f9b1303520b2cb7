"""Rspamd beside us: what we sign it verifies, by RSA and Ed25519, and it sees each change."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from postroad.trust.dkim_body import Canonicalization
from postroad.trust.dkim_sign import DkimSigner, SigningKey, SigningOptions, public_record
from tests.peers.harness import need, ports
from tests.peers.harness.knot import Knot
from tests.peers.harness.process import Program, listens
from tests.unit.trust.dkim_parts import MESSAGE, keys

pytestmark = pytest.mark.peer

FORMS = [(head, body) for head in Canonicalization for body in Canonicalization]
_CONFIG = """\
options {{
  pidfile = "{place}/pid";
  filters = "dkim";
  tempdir = "{place}";
  control_socket = "{place}/control mode=0600";
  hs_cache_dir = "{place}";
  url_tld = "{place}/tld";
  disable_hyperscan = true;
  dns {{ nameserver = ["127.0.0.1:{dns}"]; timeout = 5s; retransmits = 3; }}
}}
logging {{ type = "console"; level = "info"; }}
worker "normal" {{ bind_socket = "127.0.0.1:{port}"; count = 1; }}
dkim {{ }}
"""


class Rspamd:
    """With its DKIM module alone, asked by HTTP."""

    def __init__(self, place: Path, dns: int) -> None:
        need.root()
        self.port = ports.port()
        (place / "tld").write_text("example\n")
        config = place / "rspamd.conf"
        config.write_text(_CONFIG.format(place=place, dns=dns, port=self.port))
        self._program = Program([need.program("rspamd"), "-f", "-i", "-c", str(config)], place / "log")

    def start(self) -> None:
        self._program.start()
        self._program.ready(lambda: listens("127.0.0.1", self.port), "rspamd listens", within_s=60)

    def stop(self) -> None:
        self._program.stop()

    def log(self) -> str:
        return self._program.log()

    def symbols(self, message: bytes) -> dict[str, Any]:
        """What it has found, with the domains and selectors that it is about."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("POST", "/checkv2", message)
        found = json.loads(connection.getresponse().read())["symbols"]
        connection.close()
        return {name: sorted(each.get("options", ())) for name, each in found.items()}


@pytest.fixture(scope="module")
def rspamd(place: Path) -> Iterator[Rspamd]:
    domain = keys()[0].domain
    lines = (f"{each.selector}._domainkey IN TXT {_strings(public_record(each.private))}" for each in keys())
    with Knot(place / "knot", {domain: "\n".join(lines)}) as knot:
        made = Rspamd(place, knot.port)
        made.start()
        try:
            yield made
        finally:
            made.stop()


def _strings(record: str) -> str:
    return " ".join(f'"{record[at : at + 200]}"' for at in range(0, len(record), 200))


@pytest.mark.parametrize(("head", "body"), FORMS)
@pytest.mark.parametrize("key", keys(), ids=lambda key: key.kind.value)
def test_it_verifies_what_we_sign(
    rspamd: Rspamd, key: SigningKey, head: Canonicalization, body: Canonicalization
) -> None:
    options = SigningOptions(head=head, body=body)
    whole = DkimSigner((key,), options).sign_content(MESSAGE, int(time.time())) + MESSAGE
    named = f"{key.domain}:s={key.selector}"
    assert rspamd.symbols(whole)["R_DKIM_ALLOW"] == [named]
    assert rspamd.symbols(whole.replace(b"Subject: A", b"Subject: B"))["R_DKIM_REJECT"] == [named]
    assert rspamd.symbols(whole.replace(b"last", b"lost"))["R_DKIM_REJECT"] == [named]


def test_it_verifies_two_signatures(rspamd: Rspamd) -> None:
    whole = DkimSigner(keys(), SigningOptions()).sign_content(MESSAGE, int(time.time())) + MESSAGE
    assert rspamd.symbols(whole)["R_DKIM_ALLOW"] == sorted(f"{each.domain}:s={each.selector}" for each in keys())
