"""What `postroad reports sent` shows: what was sent when and to whom, what waits, and why something was not sent."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from postroad.cli.reports import reports
from postroad.mail import identifier
from postroad.operate.sent_reports import NOT_WANTED, sent_reports
from postroad.report.feedback import day_of
from postroad.store import feedback_days
from postroad.store.feedback_days import DayMaker, DayReport, DaySending, FeedbackDay, ReportState, SendingState

DATE = "2026-11-30"
ID = identifier.make(1_796_083_200_000_000, 0, 0)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / feedback_days.FOLDER
    assert day_of(DATE) is not None
    maker = DayMaker(folder, DATE)
    domains = ("a.example", "b.example", "c.example")
    maker.add([("dmarc", domain, b"x", 1) for domain in domains])
    maker.done([DayReport("dmarc", domain, 5_000_000) for domain in domains])
    file = FeedbackDay(feedback_days.path_of(folder, DATE), writes=True)
    planned = DayReport("dmarc", "a.example", 5_000_000, ReportState.PLANNED)
    file.plan(planned, [DaySending("dmarc", "a.example", "mailto:a@a.example"),
                        DaySending("dmarc", "a.example", "mailto:b@a.example", due_us=9_000_000)])  # fmt: skip
    file.note(DaySending("dmarc", "a.example", "mailto:a@a.example", SendingState.SENT, at_us=7_000_000, id=ID, size=9))
    file.plan(DayReport("dmarc", "b.example", 5_000_000, ReportState.NONE, "asks for none"), ())
    file.close()
    (tmp_path / "postroad.toml").write_text(f'hostname = "mx.node.example"\nstate_dir = "{tmp_path}"\n')
    return tmp_path


def test_what_was_sent_and_what_waits(state: Path) -> None:
    found = sent_reports(state).reports
    assert [(each.domain, each.destination, each.state, each.at_us, each.id) for each in found] == [
        ("a.example", "mailto:b@a.example", "waiting", 9_000_000, ""),
        ("a.example", "mailto:a@a.example", "sent", 7_000_000, identifier.text(ID)),
        ("c.example", "", "waiting", 5_000_000, ""),
    ]  # fmt: skip
    (unwanted,) = [each for each in sent_reports(state, unwanted=True).reports if each.state == NOT_WANTED]
    assert (unwanted.domain, unwanted.text) == ("b.example", "asks for none")
    assert len(sent_reports(state, "A.Example").reports) == 2
    assert not sent_reports(state, since="2026-12-01").reports
    assert not sent_reports(state / "nowhere").reports


def test_a_damaged_file_is_named_and_the_others_are_shown(state: Path) -> None:
    damaged = feedback_days.path_of(state / feedback_days.FOLDER, "2026-11-29")
    damaged.write_bytes(b"no database at all" * 1_000)
    found = sent_reports(state)
    assert len(found.reports) == 3
    assert str(damaged) in found.faults[0]


def test_the_command(state: Path) -> None:
    config = str(state / "postroad.toml")
    run = CliRunner().invoke(reports, ["sent", "--since", "2026-11-01", "--config", config])
    assert run.exit_code == 0
    assert "mailto:a@a.example" in run.output and identifier.text(ID) in run.output and "waiting" in run.output
    run = CliRunner().invoke(reports, ["sent", "c.example", "--since", "2026-11-01", "--json", "--config", config])
    assert run.exit_code == 0 and '"state": "waiting"' in run.output.replace('":"', '": "')
