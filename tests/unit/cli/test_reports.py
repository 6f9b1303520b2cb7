"""`postroad reports`: what it prints of the reports that are kept, as text and as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from postroad.cli.reports import reports
from postroad.store.kept_reports import KeptMail, MailState, ReportStore
from postroad.store.options import KeptReportOptions
from postroad.trust.inbound import keeping, report_mail
from tests.unit.trust.inbound import samples

Run = Callable[..., Result]
FAILURE = samples.feedback(
    "Feedback-Type: auth-failure\r\nVersion: 1\r\nAuth-Failure: dmarc\r\nSource-IP: 192.0.2.9\r\n",
    message_id="<f-1@there.example>",
)
ROWS = [samples.record(count=7), samples.record("2001:db8::5", 3, dkim="fail", disposition="reject")]
MAILS = (
    samples.mail(samples.part("text/xml", samples.aggregate(ROWS))),
    samples.mail(samples.part("text/xml", samples.aggregate(ROWS, organization="B", report_id="2", begin_s="x"))),
    samples.mail(samples.part("text/xml", samples.aggregate(domain="sub.example.org", report_id="3"))),
    samples.mail(samples.part("application/json", samples.tls())), samples.feedback(),
    samples.feedback(message_id="<c-2@there.example>"), FAILURE,
)  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "postroad.toml").write_text('hostname = "mx.example.org"\nstate_dir = "state"\n')

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(reports, [*arguments, "-c", str(tmp_path / "postroad.toml")])

    return run


@pytest.fixture
def kept(tmp_path: Path) -> None:
    now_us = time.time_ns() // 1000
    store = ReportStore(tmp_path / "state" / "history", KeptReportOptions())
    for number, content in enumerate(MAILS, 1):
        found = report_mail.read([content])
        assert found.reports and not found.problems
        store.put(KeptMail(number, now_us - 1000 + number), tuple(keeping.kept(found, number)))
    bad = KeptMail(99, now_us, "192.0.2.66", "a@b.example", text="it is \x1b[31mbroken", state=MailState.UNREADABLE)
    store.put(bad, ())
    store.put(KeptMail(100, now_us, state=MailState.ORDINARY), ())
    store.put(KeptMail(101, now_us - 30 * 86_400_000_000, state=MailState.UNREADABLE), ())
    store.close()


@pytest.mark.parametrize("what", ["dmarc", "tls", "complaints"])
def test_without_reports(run: Run, what: str) -> None:
    ended = run(what)
    assert ended.exit_code == 0 and f"No {what.upper() if what != 'complaints' else what}" in ended.output
    assert json.loads(run(what, "--json").output)["since_s"] > 0
    assert "0 mails since" in run().output
    assert run("unread").output == "Every report was read.\n"


@pytest.mark.usefixtures("kept")
def test_what_came(run: Run) -> None:
    shown = run().output
    assert "9 mails since" in shown and "3 DMARC reports, 1 TLS report, 2 complaints, 1 failure report" in shown
    assert "1 mail without a report" in shown and "192.0.2.66" in shown
    assert "\x1b" not in shown
    found = json.loads(run("--json").output)
    assert found["reports"] == {"dmarc": 3, "tls": 1, "complaint": 2, "failure": 1}
    assert [each["reason"] for each in found["unread"]] == ["it is \x1b[31mbroken"]
    assert len(json.loads(run("unread", "--since", "60d", "--json").output)) == 2


@pytest.mark.usefixtures("kept")
def test_who_sends_in_our_name(run: Run) -> None:
    shown = run("dmarc", "Example.ORG").output
    lines = [line.split() for line in shown.splitlines()]
    assert ["example.org", "192.0.2.1", "16", "pass", "fail", "none", "Reporter", "Inc.,", "B"] in lines
    assert ["example.org", "2001:db8::5", "6", "fail", "fail", "reject", "Reporter", "Inc.,", "B"] in lines
    assert "22 messages in 3 reports" in shown and "16 passed DMARC (72 %)" in shown
    assert "Failure reports" in shown and "192.0.2.9" in shown
    assert "B: it does not say for which time it is" in shown
    assert "Of 3 reports nobody has verified the author" in shown and "1 mail could not be read" in shown
    (source,) = json.loads(run("dmarc", "sub.example.org", "--json").output)["sources"]
    assert (source["messages"], source["passed"], source["verified"]) == (2, True, False)
    assert source["signers"] == ["example.org=pass"] and source["senders"] == ["bounce.example.org=fail"]
    assert json.loads(run("dmarc", "--verified", "--json").output)["reports"] == 0
    assert json.loads(run("dmarc", "--since", "2099-01-01", "--json").output)["messages"] == 0


@pytest.mark.usefixtures("kept")
def test_how_tls_went(run: Run) -> None:
    shown = run("tls").output
    assert ["example.org", "sts", "40", "3", "Sender", "Inc."] in [line.split() for line in shown.splitlines()]
    assert "certificate-expired" in shown and "X509_V_ERR_CERT_HAS_EXPIRED" in shown
    (policy,) = json.loads(run("tls", "example.org", "--json").output)["policies"]
    assert policy["failures"][0]["sessions"] == 3
    assert json.loads(run("tls", "other.example", "--json").output)["policies"] == []


@pytest.mark.usefixtures("kept")
def test_who_complains(run: Run) -> None:
    words = [line.split() for line in run("complaints").output.splitlines()]
    assert words[1][:5] == ["example.org", "-", "spring:news:example", "abuse", "2"]
    each = run("complaints", "--each").output
    assert each.count("Grüße") == 2 and "bob@there.example" in each
    found = json.loads(run("complaints", "example.org", "--json").output)
    assert found["complaints"] == 2 and found["each"][0]["queue_id"] == ""


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [(("dmarc", "a b"), "is not a domain"), (("dmarc", "--since", "soon"), "is not a time"), (("dkim",), "No such")],
)
def test_wrong_usage(run: Run, arguments: tuple[str, ...], wrong: str) -> None:
    ended = run(*arguments)
    assert ended.exit_code == 2 and wrong in ended.output


@pytest.mark.usefixtures("kept")
def test_a_damaged_file_is_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "state" / "history" / "reports.db").write_bytes(b"rubbish" * 999)
    for command in ((), ("dmarc",), ("tls", "--json"), ("complaints",), ("unread",)):
        ended = run(*command)
        assert ended.exit_code == 1 and "not a database" in ended.output, ended.output
