"""Reports made by the programs of others: opendmarc-reports sends to a node; parsedmarc reads the same files as we do.

opendmarc-import puts a history file of opendmarc into a database, and opendmarc-reports makes reports of it and sends
them by SMTP itself, as zip archives that were written as a stream.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from postroad.trust.inbound import report_mail
from postroad.trust.inbound.values import InboundAggregate, InboundFeedback, InboundTls
from tests.peers.harness import need
from tests.peers.harness.databases import Mariadb
from tests.peers.harness.postroad import Node, local_domain
from tests.peers.harness.unpacked import CACHE
from tests.unit.trust.inbound import samples

pytestmark = pytest.mark.peer

PARSEDMARC = CACHE / "parsedmarc" / "bin" / "python"
SCHEMA = Path("/usr/share/dbconfig-common/data/opendmarc/install/mysql")
MESSAGE = """\
job {job}
reporter mx.reporter.example
received {at}
ipaddr {source}
from {domain}
mfrom bounce.{domain}
spf {spf}
dkim {domain} s1 {dkim}
pdomain {domain}
arc 7
arc_policy 7 json:[]
policy 15
rua mailto:dmarc@here.example
pct 100
adkim 114
aspf 114
p 110
sp 0
align_dkim {align_dkim}
align_spf {align_spf}
action 2
"""


def _history(at: int) -> str:
    passed = {"dkim": 0, "align_dkim": 4, "spf": 0, "align_spf": 4}
    failed = {"dkim": 7, "align_dkim": 5, "spf": 7, "align_spf": 5}
    rows = [("192.0.2.1", passed)] * 3 + [("2001:db8::9", failed)] * 2
    return "".join(
        MESSAGE.format(job=f"job{number}", at=at, source=source, domain="sender.example", **results)
        for number, (source, results) in enumerate(rows)
    )


def test_opendmarc_reports_are_read(place: Path) -> None:
    for program in ("opendmarc-import", "opendmarc-reports"):
        need.program(program)
    modules = "use DBD::mysql; use Switch; use HTTP::Request; use JSON;"
    found = subprocess.run(["perl", "-e", modules], capture_output=True, check=False, timeout=30)
    if found.returncode or not SCHEMA.exists():
        need.missing("DBD::mysql or the schema of opendmarc is not installed (make peers installs them)")
    settings = {
        "domain": [local_domain("here.example", ["ada"])],
        "report_mailboxes": {"addresses": ["dmarc@here.example"], "deliver": "unread"},
    }
    with Node(place / "node", settings) as node, Mariadb(place / "database") as database:
        database.sql(SCHEMA.read_text())
        database.sql("GRANT ALL ON opendmarc.* TO postroad@'127.0.0.1'")
        at = ["--dbhost=127.0.0.1", f"--dbport={database.port}", "--dbname=opendmarc", "--dbuser=postroad",
              "--dbpasswd=secret"]  # fmt: skip
        _run(place, ["opendmarc-import", *at], _history(int(time.time()) - 1800))
        database.sql("UPDATE opendmarc.requests SET lastsent = FROM_UNIXTIME(UNIX_TIMESTAMP() - 86400)")
        _run(place, [
            "opendmarc-reports", *at, "--interval=3600", "--report-email=dmarc@reporter.example",
            "--report-org=reporter.example", "--smtp-server=127.0.0.1", f"--smtp-port={node.port}", "--verbose",
        ], "")  # fmt: skip
        node.wait_log("read: a DMARC report of reporter.example for sender.example")
        told = node.json("reports", "dmarc", "sender.example", "--json")
    assert {(each["source"], each["messages"], each["dkim"], each["spf"]) for each in told["sources"]} == {
        ("192.0.2.1", 3, "pass", "pass"), ("2001:db8::9", 2, "fail", "fail"),
    }  # fmt: skip
    assert told["unread"] == 0


def _run(place: Path, command: list[str], text: str) -> None:
    ran = subprocess.run(
        [need.program(command[0]), *command[1:]], input=text, capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "PATH": f"/usr/sbin:{os.environ['PATH']}"}, cwd=place,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr


_PARSE = """
import json, sys
import parsedmarc
for path in sys.argv[1:]:
    try:
        found = parsedmarc.parse_report_email(open(path, "rb").read(), offline=True)
        print(json.dumps({"type": found["report_type"], "report": found["report"]}, default=str))
    except Exception as error:
        print(json.dumps({"type": "refused", "report": repr(error)}))
"""

_XML = samples.aggregate(
    [samples.record(count=7), samples.record("2001:db8::5", 3, dkim="fail", disposition="reject"), samples.record()]
)
_V2 = samples.aggregate(attributes=' xmlns="urn:ietf:params:xml:ns:dmarc-2.0"', report_id="v2")
MAILS = {
    "gzip": samples.mail(samples.part("application/gzip", samples.packed(_XML), "a!example.org!1!2.xml.gz")),
    "zip": samples.mail(samples.part("application/zip", samples.zipped({"a.xml": _XML}), "a!example.org!1!2.zip")),
    "wrong type": samples.mail(samples.part("image/png", samples.packed(_XML), "x.png")),
    "plain": samples.mail(samples.part("text/xml", _XML, "a.xml")),
    "rfc 9990": samples.mail(samples.part("application/gzip", samples.packed(_V2), "a.xml.gz")),
    "tls": samples.mail(samples.part("application/tlsrpt+gzip", samples.packed(samples.tls()), "a.json.gz")),
    "tls as it is": samples.mail(samples.part("application/tlsrpt+json", samples.tls(), "a.json")),
    "failure": samples.feedback(
        "Feedback-Type: auth-failure\r\nUser-Agent: x/1\r\nVersion: 1\r\nAuth-Failure: dmarc\r\n"
        "Arrival-Date: Mon, 1 Dec 2025 10:00:05 +0000\r\nSource-IP: 192.0.2.9\r\nReported-Domain: example.org\r\n"
        "Original-Mail-From: <a@example.org>\r\nAuthentication-Results: mx.there.example; dmarc=fail\r\n"
    ),
}


@pytest.fixture(scope="module")
def opinions(place: Path) -> dict[str, Any]:
    if not PARSEDMARC.exists():
        need.missing("parsedmarc is not installed (make peers installs it)")
    paths = {name: place / f"{number}.eml" for number, name in enumerate(MAILS)}
    for name, path in paths.items():
        path.write_bytes(MAILS[name])
    ran = subprocess.run([str(PARSEDMARC), "-c", _PARSE, *map(str, paths.values())], capture_output=True, text=True,
                         check=True, timeout=180)  # fmt: skip
    return dict(zip(paths, map(json.loads, ran.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("name", MAILS)
def test_parsedmarc_reads_the_same(name: str, opinions: dict[str, Any]) -> None:
    theirs = opinions[name]
    ((ours,), problems) = (found := report_mail.read([MAILS[name]])).reports, found.problems
    assert problems == ()
    said = theirs["report"]
    match ours:
        case InboundAggregate():
            assert theirs["type"] == "aggregate", said
            assert said["report_metadata"]["report_id"] == ours.report_id
            assert said["policy_published"]["domain"] == ours.policy.domain
            counts: dict[str, int] = {}
            for each in said["records"]:
                source = each["source"]["ip_address"]
                counts[source] = counts.get(source, 0) + each["count"]
            assert counts == {row.source: row.count for row in ours.rows}
            assert {each["alignment"]["dkim"] for each in said["records"]} == {row.dkim == "pass" for row in ours.rows}
        case InboundTls():
            assert theirs["type"] == "smtp_tls", said
            (policy,) = said["policies"]
            assert (policy["successful_session_count"], policy["failed_session_count"]) == (
                ours.policies[0].successful, ours.policies[0].failed,
            )  # fmt: skip
            assert policy["failure_details"][0]["result_type"] == ours.policies[0].failures[0].type
        case InboundFeedback():
            assert theirs["type"] in ("failure", "forensic"), said
            assert said["source"]["ip_address"] == ours.source
            assert said["reported_domain"] == ours.domains[0]
            assert said["original_mail_from"].strip("<>") == ours.mail_from
