"""Mail::AuthenticationResults reads what we write, also with hostile texts in it; we read what it writes.

opendmarc, Mail::DKIM and other filters behind us judge by these fields, so each result must arrive with its properties.
"""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from postroad.trust.authres import field, payload
from postroad.trust.authres_reading import read
from postroad.trust.results import ARC, AUTH, DKIM, DMARC, FAIL, IPREV, NONE, PASS, SPF, TEMPERROR, Found
from tests.peers.harness import need

pytestmark = pytest.mark.peer

US = "mx.example.org"
_READ = r"""
use strict; use warnings; use Mail::AuthenticationResults::Parser;
local $/; print Mail::AuthenticationResults::Parser->new()->parse(<STDIN>)->as_json;
"""
_WRITE = r"""
use strict; use warnings; use Mail::AuthenticationResults::Parser;
local $/; print Mail::AuthenticationResults::Parser->new()->parse(<STDIN>)->as_string;
"""
HOSTILE = 'x"\\;\r\n( =spf=pass) @\x00é'
RESULTS = (
    Found(IPREV, PASS, properties=(("policy", "iprev", "2001:db8::1"),)),
    Found(AUTH, PASS, properties=(("smtp", "auth", '"ada l"@a.example'),)),
    Found(SPF, TEMPERROR, HOSTILE, (("smtp", "mailfrom", "ada@a.example"),)),
    Found(
        DKIM, FAIL, 'the body hash differs: "a" is not "b\\"',
        (("header", "i", "news@a.example"), ("header", "s", HOSTILE), ("header", "b", "aB/c+d=="))
    ),
    Found(ARC, NONE),
    Found(DMARC, FAIL, properties=(("header", "from", "a.example"), ("policy", "dmarc", "quarantine"))),
)  # fmt: skip


def _perl(script: str, octets: bytes) -> str:
    perl = need.program("perl")
    ran = subprocess.run([perl, "-e", script], input=octets, capture_output=True, check=False, timeout=60)
    if b"Can't locate Mail/AuthenticationResults" in ran.stderr:
        need.missing("Mail::AuthenticationResults is not installed (make peers installs it)")
    assert ran.returncode == 0, ran.stderr.decode()
    return ran.stdout.decode()


def _said(header: Any) -> list[tuple[str, str, dict[str, str]]]:
    found = []
    for each in header["children"]:
        properties = {sub["key"]: sub["value"] for sub in each["children"] if sub["type"] == "subentry"}
        found.append((each["key"], each["value"], properties))
    return found


def _ours(value: bytes) -> list[tuple[str, str, dict[str, str]]]:
    found = []
    for each in read(value).results:
        properties = {f"{ptype}.{name}": said for ptype, name, said in each.properties}
        found.append((each.method, each.result, properties | ({"reason": each.reason} if each.reason else {})))
    return found


@pytest.mark.parametrize("results", [(), *[(each,) for each in RESULTS], RESULTS], ids=len)
def test_it_reads_what_we_write(results: tuple[Found, ...]) -> None:
    value = payload(US, results)
    header = json.loads(_perl(_READ, value))
    assert header["authserv_id"]["value"] == US
    assert _said(header) == _ours(value)
    assert [each[:2] for each in _said(header)] == [(each.method, each.result) for each in results]


def test_we_read_what_it_writes() -> None:
    value = payload(US, RESULTS)
    again = _perl(_WRITE, value).replace("\n", "\r\n").encode()
    assert read(again).authserv_id == US and not read(again).problem
    assert _ours(again) == _ours(value)
    assert field(US, RESULTS).partition(b": ")[2] == value + b"\r\n"
