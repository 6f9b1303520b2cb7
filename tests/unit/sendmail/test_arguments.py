"""The command line of sendmail, as programs write it."""

from __future__ import annotations

from pathlib import Path

import pytest

from postroad.sendmail import arguments
from postroad.sendmail.exits import USAGE, End


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-i ann", {"dots": True, "recipients": ["ann"]}),
        ("-oem -oi -f e@x.test -- ann -bob", {
            "dots": True, "mail_errors": True, "sender": "e@x.test", "recipients": ["ann", "-bob"],
        }),
        ("-oem -oi -f <> ann", {"sender": "", "recipients": ["ann"]}),
        ("-i -t -f e@x.test", {"dots": True, "extract": True, "sender": "e@x.test", "recipients": []}),
        ("-ti", {"dots": True, "extract": True}),
        ("-t -i -fweb@x.test", {"sender": "web@x.test"}),
        ("-FCronDaemon -i -B8BITMIME -oem root", {"name": "CronDaemon", "body": "8BITMIME", "recipients": ["root"]}),
        ("ann -f e bob", {"sender": None, "recipients": ["ann", "-f", "e", "bob"]}),
        ("-r e ann", {"sender": "e"}),
        ("-N success,delay -R hdrs -V id ann", {"notify": "SUCCESS,DELAY", "ret": "HDRS", "envid": "id"}),
        ("-N never ann", {"notify": "NEVER"}),
        ("-X /tmp/log ann", {"recipients": ["ann"]}),
        ("-O IgnoreDots=True -O ErrorMode=m ann", {"dots": True, "mail_errors": True, "recipients": ["ann"]}),
        ("-oee ann", {"mail_errors": True}),
        ("-oeq ann", {"mail_errors": False}),
        ("-Am -C /etc/x -G -h 3 -L tag -m -n -o7 -U -p SMTP:host -x ann", {"recipients": ["ann"]}),
        ("-d8.1 -d ann", {"recipients": ["ann"]}),
        ("-v ann", {"verbose": True}),
        ("-bm ann", {"mode": arguments.SUBMIT}),
        ("-bs", {"mode": arguments.SMTP}),
        ("-bp", {"mode": arguments.LIST}),
        ("-bv ann", {"mode": arguments.VERIFY, "recipients": ["ann"]}),
        ("-bi", {"mode": arguments.ALIASES}),
        ("-I", {"mode": arguments.ALIASES}),
        ("-q", {"mode": arguments.FLUSH}),
        ("-qf", {"mode": arguments.FLUSH}),
        ("-q30m -t", {"mode": arguments.SUBMIT}),
    ],
)
def test_what_programs_write(line: str, expected: dict[str, object]) -> None:
    found = arguments.read("/usr/sbin/sendmail", line.split())
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    "line",
    ["-f", "-bd", "-bx", "-B9BIT", "-N sometimes", "-R some", "-qRexample.test", "-XVab", "-XV+"],
)
def test_what_cannot_be_done_is_refused(line: str) -> None:
    with pytest.raises(End) as caught:
        arguments.read("sendmail", line.split())
    assert caught.value.code == USAGE and caught.value.text


@pytest.mark.parametrize(
    ("line", "verp"), [("-XV ann", "+="), ("-X V ann", "+="), ("-XV-= ann", "-="), ("-Xlog ann", ""), ("ann", "")]
)
def test_a_sender_of_its_own_for_each_recipient(line: str, verp: str) -> None:
    found = arguments.read("sendmail", line.split())
    assert (found.verp, found.recipients) == (verp, ["ann"])


@pytest.mark.parametrize(
    ("program", "mode"),
    [("mailq", arguments.LIST), ("/usr/bin/newaliases", arguments.ALIASES), ("sendmail", arguments.SUBMIT)],
)
def test_the_name_says_what_is_wanted(program: str, mode: str) -> None:
    assert arguments.read(program, []).mode == mode


def test_options_that_name_files_touch_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that put what strangers write into options have had files written by -X and read by -C and -O."""
    monkeypatch.chdir(tmp_path)
    line = "-X log -C cf -O QueueDirectory=q -oQq -OLogFile=l -d0-99.9 -oAaliases -- ann"
    assert arguments.read("sendmail", line.split()).recipients == ["ann"]
    assert list(tmp_path.iterdir()) == []
