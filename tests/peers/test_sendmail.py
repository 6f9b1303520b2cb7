"""Real programs that send mail by calling `sendmail`: what they hand over reaches the node, whole, for all."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

import pytest

from tests.peers.harness import maildir, need, ports
from tests.peers.harness.postroad import Node, local_domain, relay_listener
from tests.peers.harness.process import Program, folder, until
from tests.peers.harness.sendmail import Ended, Sendmail

BODY = "Grüße\n.\n..\n\tend\n"  # a line with only a dot stays, because every program gives -i


@dataclass
class Site:
    place: Path
    sendmail: Sendmail
    node: Node

    def arrived(self, subject: str, *names: str) -> list[EmailMessage]:
        """The message with this subject, as each of these mailboxes has it."""
        found = [maildir.wait(self.node.maildir(f"{name}@example.test"), of=subject) for name in names]
        return [maildir.parse(each[0]) for each in found]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with folder("sm") as home:
        sendmail = Sendmail(home)
        settings = {
            "hostname": "example.test",
            "domain": [local_domain("example.test", ["ann", "bob", "root", "postmaster"])],
            "listener": [relay_listener(ports.port())],
            "sendmail": {"folder": str(sendmail.folder)},
        }
        with Node(home / "n", settings) as node:
            yield Site(home, sendmail, node)


def _run(site: Site, command: list[str], text: str = BODY, **environment: str) -> Ended:
    home = site.place / "home"
    home.mkdir(exist_ok=True)
    return subprocess.run(
        command, input=text.encode(), capture_output=True, check=False, timeout=60, cwd=home,
        env={**os.environ, "HOME": str(home), "LC_ALL": "C.UTF-8", **environment},
    )


def _mutt(site: Site, subject: str) -> Ended:
    settings = [f'set sendmail="{site.sendmail.path} -oem -oi"', "set copy=no", "set from=ann@example.test",
                "set use_envelope_from=yes", "set hostname=example.test"]  # fmt: skip
    options = [word for setting in settings for word in ("-e", setting)]
    command = [need.program("mutt"), "-n", "-F", "/dev/null", *options, "-s", subject, "-b", "bob", "--", "ann"]
    return _run(site, command)


def _s_nail(site: Site, subject: str) -> Ended:
    options = [f"-Smta=file://{site.sendmail.path}", "-Sfrom=ann@example.test", "-r", "ann@example.test"]
    return _run(site, [need.program("s-nail"), "-:/", *options, "-s", subject, "-b", "bob@example.test", "ann"])


def _bsd_mailx(site: Site, subject: str) -> Ended:
    rules = site.place / "mailrc"
    rules.write_text(f"set sendmail={site.sendmail.path}\n")
    return _run(site, [need.program("bsd-mailx"), "-n", "-s", subject, "-b", "bob", "ann"], MAILRC=str(rules))


def _php(site: Site, subject: str) -> Ended:
    code = f"""exit(mail("ann@example.test", "{subject}", file_get_contents("php://stdin"),
      "From: web@example.test\\r\\nBcc: bob@example.test\\r\\nContent-Type: text/plain; charset=utf-8",
      "-fweb@example.test") ? 0 : 1);"""
    return _run(site, [need.program("php"), "-n", "-d", f"sendmail_path={site.sendmail.path} -t -i", "-r", code])


def _git(site: Site, subject: str) -> Ended:
    git = need.program("git")
    if not Path("/usr/lib/git-core/git-send-email").exists():
        need.missing("git send-email is not installed (make peers installs it)")
    if subprocess.run(["perl", "-MMail::Address", "-e1"], check=False, capture_output=True).returncode:
        need.missing("Perl's Mail::Address is not installed (make peers installs it)")
    work = site.place / f"work-{subject}"
    who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.test", "-C", str(work)]
    _run(site, [git, "init", "-q", str(work)])
    (work / "file").write_text(BODY)
    _run(site, [git, *who, "add", "file"])
    _run(site, [git, *who, "commit", "-q", "-m", subject])
    return _run(site, [
        git, *who, "send-email", f"--smtp-server={site.sendmail.path}", "--confirm=never", "--quiet",
        "--8bit-encoding=UTF-8", "--to=ann@example.test", "--bcc=bob@example.test",
        "--envelope-sender=ann@example.test", "-1",
    ])  # fmt: skip


def _reportbug(site: Site, subject: str) -> Ended:
    need.program("reportbug")
    code = f"""
from email.header import Header
import os
import sys
from reportbug.submit import send_report
os.chdir("/tmp")
send_report(sys.stdin.read(), [], "", "ann@example.test", "ann@example.test", "", "bob@example.test",
            [("X-Test", "{subject}")], package="{subject}", charset="utf-8", mta={str(site.sendmail.path)!r},
            smtphost="", rtype="none", exinfo=None)
"""
    return _run(site, ["/usr/bin/python3", "-c", code], f"Subject: {subject}\n\n{BODY}")


def _smartd(site: Site, subject: str) -> Ended:
    """What smartd runs when a disk fails; it calls mail(1)."""
    need.program("smartd")
    rules = site.place / "mailrc"
    rules.write_text(f"set sendmail={site.sendmail.path}\n")
    script = "/usr/share/smartmontools/smartd_warning.sh"
    return _run(
        site, [script], MAILRC=str(rules), SMARTD_MAILER=need.program("bsd-mailx"), SMARTD_ADDRESS="ann bob",
        SMARTD_FAILTYPE="EmailTest", SMARTD_MESSAGE=f"{subject}\n{BODY}", SMARTD_DEVICESTRING="sda",
        SMARTD_DEVICE="/dev/sda",
    )


_PROGRAMS: dict[str, Callable[[Site, str], Ended]] = {
    "mutt": _mutt, "s-nail": _s_nail, "bsd-mailx": _bsd_mailx, "php": _php, "git": _git, "reportbug": _reportbug,
    "smartd": _smartd,
}  # fmt: skip


@pytest.mark.parametrize("program", _PROGRAMS)
def test_its_mail_reaches_all_recipients_and_nobody_sees_bcc(site: Site, program: str) -> None:
    ended = _PROGRAMS[program](site, f"by-{program}-here")
    assert ended.returncode == 0, (ended.stdout + ended.stderr).decode()
    for message in site.arrived(f"by-{program}-here", "ann", "bob"):
        assert message["bcc"] is None
        assert len(message.get_all("from", [])) == len(message.get_all("message-id", [])) == 1
        assert message["date"] is not None
        text = "\n".join(part.get_content() for part in message.walk() if part.get_content_maintype() == "text")
        lines = [line.removeprefix("+").strip() for line in text.splitlines()]
        assert [line for line in lines if line in {"Grüße", ".", "..", "end"}] == ["Grüße", ".", "..", "end"]


def test_cron_mails_what_a_job_prints(site: Site) -> None:
    need.root()
    cron = need.program("cron")
    tables, run = site.place / "crontabs", site.place / "run"
    tables.mkdir()
    run.mkdir()
    # A job that prints lone CRs, as programs do that show how far they are.
    (tables / "root").write_text("MAILTO=ann\n@reboot printf 'from-cron\\n10\\%\\%\\r100\\%\\%\\n'\n")
    (tables / "root").chmod(0o600)
    daemon = Program(
        ["unshare", "-m", "sh", "-c", f"mount --bind {site.place}/usr/lib/postroad/sendmail /usr/sbin/sendmail && "
         f"mount --bind {tables} /var/spool/cron/crontabs && mount --bind {run} /run && exec {cron} -f"],
        site.place / "cron.log",
    )  # fmt: skip
    daemon.start()
    try:
        (message,) = site.arrived("from-cron", "ann")
    finally:
        daemon.stop()
    assert message["from"].addresses[0].addr_spec == "root@example.test"
    (octets,) = maildir.wait(site.node.maildir("ann@example.test"), of="from-cron")
    assert b"\nFrom: root@example.test (Cron Daemon)\n" in octets
    assert b"\n10% 100%\n" in octets


def test_at_mails_what_a_job_prints(site: Site) -> None:
    need.root()
    atd, at = need.program("atd"), need.program("at")
    jobs, spool = site.place / "atjobs", site.place / "atspool"
    for each in (jobs, spool):
        each.mkdir()
        os.chown(each, 1, 1)
        each.chmod(0o1770)
    (jobs / ".SEQ").touch()
    os.chown(jobs / ".SEQ", 1, 1)
    (jobs / ".SEQ").chmod(0o600)
    daemon = Program(
        ["unshare", "-m", "sh", "-c", f"mount --bind {site.place}/usr/lib/postroad/sendmail /usr/sbin/sendmail && "
         f"mount --bind {jobs} /var/spool/cron/atjobs && mount --bind {spool} /var/spool/cron/atspool && "
         f"mount -t tmpfs none /run && echo 'echo from-at' | {at} now && exec {atd} -d -b 1"],
        site.place / "at.log",
    )  # fmt: skip
    daemon.start()
    try:
        (message,) = site.arrived("from-at", "root")
    finally:
        daemon.stop()
    assert message["to"].addresses[0].addr_spec == "root@example.test"


def test_it_starts_without_modules_that_are_slow_to_import(site: Site) -> None:
    """Handing over a message imports our own few modules, and of Python's only what is built in."""
    script = site.sendmail.home / "usr/lib/postroad/sendmail"
    code = script.read_text().replace("sys.exit(main(", "main((").replace(", sys.argv))", ", ['sendmail', 'ann']))")
    assert "main((" in code
    code = code.replace("main((", "main(").replace("['sendmail', 'ann']))", "['sendmail', 'ann'])")
    code += "\nprint(*sorted(sys.modules))\n"
    ended = subprocess.run(
        ["/usr/bin/python3", "-IS", "-c", code], input=b"Subject: imports\n\n", capture_output=True, check=True
    )
    loaded = set(ended.stdout.decode().split())
    slow = {"re", "typing", "json", "socket", "enum", "collections", "ctypes", "pathlib", "site", "email", "os"}
    assert not loaded & slow, loaded & slow
    assert {name for name in loaded if name.startswith("postroad")} == {
        "postroad", "postroad.sendmail",
        *(f"postroad.sendmail.{name}" for name in ("arguments", "exits", "main", "message", "node_socket", "places",
                                                   "request")),
    }  # fmt: skip
    until(lambda: site.arrived("imports", "ann"), "it is there")


@pytest.mark.parametrize(("option", "expected"), [("-XV", "ann+bob=example.test"), ("-XV-=", "ann-bob=example.test")])
def test_a_sender_of_its_own_for_each_recipient(site: Site, option: str, expected: str) -> None:
    subject = f"verp {option}"
    ended = site.sendmail(option, "-f", "ann@example.test", "bob@example.test", "postmaster@example.test",
                          message=f"Subject: {subject}\n\nhello\n".encode())  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    (bob, postmaster) = site.arrived(subject, "bob", "postmaster")
    assert bob["Return-Path"] == f"<{expected}@example.test>"
    assert postmaster["Return-Path"] == f"<{expected.replace('bob', 'postmaster')}@example.test>"
