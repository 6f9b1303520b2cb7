"""`postroad verify` as its users call it: names from Knot, mail of OpenDKIM and dkimpy that is broken on the way."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from postroad.trust.dkim_sign import public_record
from tests.peers.harness import need
from tests.peers.harness.knot import Knot
from tests.unit.trust.dkim_parts import MESSAGE, keys, pem, rsa, secret

dkim: Any = pytest.importorskip("dkim", reason="dkimpy is not installed")

pytestmark = pytest.mark.peer

RSA, EDWARDS = keys("d.example")
MAIL = MESSAGE.replace(b"@example.org", b"@d.example").replace(b"this is", b"gr\xc3\xbc\xc3\x9fe, this is")


def _strings(record: str) -> str:
    return " ".join(f'"{record[at : at + 200]}"' for at in range(0, len(record), 200))


ZONES = {
    "d.example": f"""
        @ IN TXT "v=spf1 ip4:192.0.2.1 -all"
        _dmarc IN TXT "v=DMARC1; p=reject"
        r1._domainkey IN TXT {_strings(public_record(RSA.private))}
        e1._domainkey IN TXT {_strings(public_record(EDWARDS.private))}
        other._domainkey IN TXT {_strings(public_record(rsa(1024)))}
        revoked._domainkey IN TXT "v=DKIM1; p="
        out IN A 192.0.2.1
        """,
    "example": "",  # Knot refuses what it has no zone for; the tree walk of DMARC asks here, too
    "list.example": '@ IN TXT "v=spf1 ip4:192.0.2.9 -all"',
    "2.0.192.in-addr.arpa": "1 IN PTR out.d.example.",
}
KNOWN = ("--client", "192.0.2.1", "--helo", "out.d.example", "--from", "ada@d.example")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("verify")
    with Knot(made / "knot", ZONES) as knot:
        (made / "postroad.toml").write_text(
            'hostname = "mx.example.net"\nstate_dir = "state"\n'
            f'[dns]\nservers = ["127.0.0.1:{knot.port}"]\n'
        )  # fmt: skip
        yield made


def run(folder: Path, message: bytes, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code and what was printed as JSON."""
    done = subprocess.run(
        [Path(sys.executable).with_name("postroad"), "verify", "-", "--json", *arguments],
        input=message, capture_output=True, timeout=60, check=False,
        env={**os.environ, "POSTROAD_CONFIG": str(folder / "postroad.toml")},
    )  # fmt: skip
    assert done.stdout, done.stderr.decode()
    return done.returncode, json.loads(done.stdout)


def by_dkimpy(selector: str = "r1", headers: list[bytes] | None = None) -> bytes:
    field: bytes = dkim.sign(
        MAIL, selector.encode(), b"d.example", secret(RSA), canonicalize=(b"relaxed", b"relaxed"),
        include_headers=headers,
    )  # fmt: skip
    return field + MAIL


def by_opendkim(folder: Path, further: str = "", form: str = "relaxed") -> bytes:
    (folder / "key.pem").write_bytes(pem(RSA.private))
    (folder / "key.pem").chmod(0o600)
    (folder / "mail").write_bytes(MAIL.replace(b"\r\n", b"\n"))
    (folder / "opendkim.conf").write_text(
        f"UserID root\nMode s\nDomain d.example\nSelector r1\nKeyFile {folder}/key.pem\n"
        f"Canonicalization {form}/simple\nOversignHeaders From\nInternalHosts 0.0.0.0/0\n{further}\n"
    )
    done = subprocess.run(
        [need.program("opendkim"), "-x", str(folder / "opendkim.conf"), "-vv", "-t", str(folder / "mail")],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    found = re.search(r"hname='DKIM-Signature' hvalue='([^']*)'", done.stdout.decode() + done.stderr.decode())
    assert found is not None, done.stderr.decode()
    return b"DKIM-Signature: " + found[1].strip().encode().replace(b"\n", b"\r\n") + b"\r\n" + MAIL


def result(found: dict[str, Any], method: str) -> str:
    return next(str(each["result"]) for each in reversed(found["checks"]) if each["method"] == method)


def test_whole_mail_passes(folder: Path) -> None:
    for message in (by_dkimpy(), by_opendkim(folder)):
        code, found = run(folder, message, *KNOWN)
        assert (code, found["first_wrong"]) == (0, ""), found
        assert [each["result"] for each in found["checks"]] == ["pass", "none", "pass", "pass", "none", "pass"]
        code, found = run(folder, message)
        assert (code, result(found, "spf"), result(found, "dmarc")) == (0, "unknown", "pass")
        code, found = run(folder, message.replace(b"\r\n", b"\n"))
        assert code == 0 and "LF" in found["notes"][0]


BROKEN = [
    (b"Subject: A", b"Subject: [list] A", "A tag was put into the subject"),
    (b"\r\n\r\n\r\n", b"\r\n-- \r\nA footer\r\n", "lines were added at the end of the body"),
    (b"Hello", b"This mail is from outside.\r\nHello", "lines were added at the top of the body"),
    (b"gr\xc3\xbc\xc3\x9fe", b"gr\xfc\xdfe", "its charset was utf-8 and is latin-1 now"),
    (b"last", b"lost", "The body has changed"),
    (b"s=r1", b"s=none", "none._domainkey.d.example does not exist"),
    (b"s=r1", b"s=revoked", "revoked"),
    (b"s=r1", b"s=other", "another key"),
    (b"bob@", b"rob@", "A signed header field, or the signature's own field, has changed"),
]


@pytest.mark.parametrize(("was", "now", "words"), BROKEN)
def test_what_was_done_to_it_on_the_way(folder: Path, was: bytes, now: bytes, words: str) -> None:
    for message in (by_dkimpy(), by_opendkim(folder)):
        assert was in message
        head, end = message.rsplit(was, 1) if was.startswith(b"\r\n") else message.split(was, 1)
        code, found = run(folder, head + now + end)
        assert code == 1
        assert words in found["first_wrong"], found
        assert (result(found, "dmarc"), result(found, "spf")) == ("unknown", "unknown")


@pytest.mark.parametrize("form", ["simple", "relaxed"])
def test_the_copy_that_opendkim_keeps_of_the_fields(folder: Path, form: str) -> None:
    message = by_opendkim(folder, "Diagnostics yes", form)
    assert b"z=" in message
    assert run(folder, message)[0] == 0
    head, end = message.rsplit(b"Subject: A  message", 1)
    code, found = run(folder, head + b"Subject: Another" + end)
    assert code == 1
    assert "By the copy in z=, 'Subject: A  message" in found["first_wrong"], found
    assert "was changed into 'Subject: Another" in found["first_wrong"]


def test_a_list_that_sends_in_the_name_of_the_author(folder: Path) -> None:
    changed = by_dkimpy().replace(b"Subject: A", b"Subject: [list] A")
    code, found = run(folder, changed, "--client", "192.0.2.9", "--helo", "l.example", "--from", "x@list.example")
    assert (code, result(found, "spf"), result(found, "dmarc")) == (1, "pass", "fail")
    told = found["checks"][-1]["told"]
    assert "SPF for list.example passed, but not aligned" in told
    assert found["checks"][-1]["dns"][0]["records"] == ["v=DMARC1; p=reject"]


def test_a_dns_that_does_not_answer_is_no_fault_of_the_mail(folder: Path) -> None:
    config = folder / "nobody.toml"
    config.write_text(
        'hostname = "mx.example.net"\nstate_dir = "state"\n'
        '[dns]\nservers = ["127.0.0.1:1"]\ntimeout_s = 0.2\ntotal_s = 0.5\n'
    )
    code, found = run(folder, by_dkimpy(), "-c", str(config))
    assert (code, result(found, "dkim"), found["not_judged"]) == (2, "temperror", True)


def test_what_large_providers_demand(folder: Path) -> None:
    code, found = run(folder, by_dkimpy(), *KNOWN, "--outgoing")
    unmet = [each["what"] for each in found["demands"] if each["met"] is False]
    # dkimpy does not sign List-Unsubscribe-Post by itself.
    assert (code, len(unmet)) == (1, 1) and "one click" in unmet[0], found
    every = [b"from", b"to", b"subject", b"date", b"message-id", b"list-unsubscribe", b"list-unsubscribe-post"]
    code, found = run(folder, by_dkimpy(headers=every), *KNOWN, "--outgoing")
    assert code == 0, found
