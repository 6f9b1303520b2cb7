"""Small programs that hand mail in: curl, msmtp, nodemailer, nullmailer; to a listener that trusts them, and as users.

Each sends the same bodies: 8-bit text, lines longer than SMTP allows, lines of dots, and a file with bare line feeds,
as every file on Unix is. What arrives is what was sent, line by line.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers.harness import maildir, need, ports
from tests.peers.harness.certificates import Authority
from tests.peers.harness.postroad import Node, local_domain, relay_listener, submission_listener
from tests.peers.harness.process import Program, until
from tests.peers.harness.unpacked import CACHE, Unpacked

_PASSWORD = "correct horse"
_BODIES = {
    "dots": b".\n..\n.dot\n\n.\nend\n",
    "eight": "Grüße aus Köln, Καλημέρα\n".encode(),
    "long": b"x" * 990 + b"\n" + b"y" * 3000 + b"\n",
    "empty": b"",
}


@dataclass
class Site:
    node: Node
    authority: Authority
    place: Path

    @property
    def submission_port(self) -> int:
        return int(self.node.config["listener"][1]["port"])

    def log(self) -> str:
        return self.node.log()


@pytest.fixture(scope="module")
def site(place: Path, authority: Authority) -> Iterator[Site]:
    chain, key = authority.certificate("postroad.test", "localhost", "127.0.0.1")
    node = Node(place / "node", {
        "listener": [relay_listener(ports.port()), submission_listener(ports.port())],
        "tls": {"certificate": str(chain), "key": str(key)},
        "auth": {"users": "users", "failure_delay_s": 0},
        "domain": [local_domain("example.test")],
    })
    node.add_user("alice", _PASSWORD, "alice@example.test")
    with node:
        yield Site(node, authority, place)


def _message(subject: str, body: bytes, line_end: bytes = b"\n") -> bytes:
    head = f"From: alice@example.test\nTo: bob@example.test\nSubject: {subject}\nMIME-Version: 1.0\n"
    head += "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n"
    return (head.encode() + body).replace(b"\n", line_end)


def _arrived(site: Site, subject: str) -> bytes:
    """The one message with this subject, its lines ended by LF."""
    (octets,) = maildir.wait(site.node.maildir("bob@example.test"), of=f"Subject: {subject}")
    return octets.replace(b"\r\n", b"\n")


def _body(octets: bytes) -> bytes:
    return octets.partition(b"\n\n")[2]


Send = Callable[[Site, bytes, bool], subprocess.CompletedProcess[bytes]]
"""(site, message, as a user: STARTTLS and AUTH) → what the program said."""


def _curl(site: Site, message: bytes, user: bool) -> subprocess.CompletedProcess[bytes]:
    file = site.place / "curl.eml"
    file.write_bytes(message)
    port = site.submission_port if user else site.node.port
    options = ["--ssl-reqd", "--cacert", str(site.authority.file), "--user", f"alice:{_PASSWORD}"] if user else []
    return _run([
        need.program("curl"), "--silent", "--show-error", "--url", f"smtp://localhost:{port}/client.test",
        "--mail-from", "alice@example.test", "--mail-rcpt", "bob@example.test", "--upload-file", str(file), *options,
    ])


def _msmtp(site: Site, message: bytes, user: bool) -> subprocess.CompletedProcess[bytes]:
    config = site.place / "msmtprc"
    lines = ["account default", "host localhost", f"port {site.submission_port if user else site.node.port}",
             "from alice@example.test"]  # fmt: skip
    if user:
        lines += ["tls on", "tls_starttls on", f"tls_trust_file {site.authority.file}", "auth on", "user alice",
                  f'password "{_PASSWORD}"']  # fmt: skip
    config.write_text("\n".join(lines) + "\n")
    config.chmod(0o600)
    return _run([need.program("msmtp"), "-C", str(config), "bob@example.test"], message)


_NODEMAILER = """
const nodemailer = require("nodemailer");
const [port, ca, user, password] = process.argv.slice(1);
const options = { host: "localhost", port: Number(port), name: "client.test" };
if (user) {
  Object.assign(options, { requireTLS: true, tls: { ca: require("fs").readFileSync(ca) } });
  options.auth = { user, pass: password };
} else {
  options.ignoreTLS = true;
}
const envelope = { from: "alice@example.test", to: ["bob@example.test"] };
nodemailer.createTransport(options).sendMail({ envelope, raw: require("fs").readFileSync(0) })
  .then((info) => console.log(info.response))
  .catch((error) => { console.error(error); process.exit(1); });
"""


def _nodemailer(site: Site, message: bytes, user: bool) -> subprocess.CompletedProcess[bytes]:
    node = need.program("node")
    modules = CACHE / "node"
    if not (modules / "node_modules" / "nodemailer").is_dir():
        need.missing("nodemailer is not installed (make peers installs it)")
    version = int(_run([node, "--version"]).stdout.lstrip(b"v").split(b".")[0])
    if version < 20:
        need.missing(f"nodemailer 10 needs Node.js 20, there is {version}")
    port = site.submission_port if user else site.node.port
    login = ["alice", _PASSWORD] if user else []
    return _run([node, "-e", _NODEMAILER, str(port), str(site.authority.file), *login], message, modules)


def _run(
    command: list[str], octets: bytes = b"", directory: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, input=octets, capture_output=True, check=False, timeout=60, cwd=directory)


_PROGRAMS: dict[str, Send] = {"curl": _curl, "msmtp": _msmtp, "nodemailer": _nodemailer}


@pytest.mark.parametrize("name", _BODIES)
@pytest.mark.parametrize("user", [False, True], ids=["trusted", "user"])
@pytest.mark.parametrize("program", _PROGRAMS)
def test_what_it_sends_arrives_as_it_was(site: Site, program: str, user: bool, name: str) -> None:
    # curl sends a file as it stands: for curl it has the line ends of the wire here, and bare ones below.
    subject = f"{program} {user} {name}."
    ran = _PROGRAMS[program](site, _message(subject, _BODIES[name], b"\r\n" if program == "curl" else b"\n"), user)
    assert ran.returncode == 0, (ran.stdout + ran.stderr).decode()
    octets = _arrived(site, subject)
    assert _body(octets) == _BODIES[name]
    # RFC 3848: the protocol says whether there was TLS and authentication.
    assert f" with ESMTP{'SA' if user else ''} id " in maildir.parse(octets)["Received"]


@pytest.mark.parametrize("user", [False, True], ids=["trusted", "user"])
@pytest.mark.parametrize("program", _PROGRAMS)
def test_a_file_with_bare_line_feeds_arrives(site: Site, program: str, user: bool) -> None:
    """A file of Unix. What a program sends with bare LF is mended for clients that are trusted, and for users."""
    subject = f"bare {program} {user}."
    body = b"first line\n.a dot\n..\nlast line\n"
    ran = _PROGRAMS[program](site, _message(subject, body), user)
    assert ran.returncode == 0, (ran.stdout + ran.stderr).decode()
    octets = _arrived(site, subject)
    assert maildir.parse(octets)["Subject"] == subject
    # curl takes the last LF for text and adds CRLF before the dot: one more line end.
    assert _body(octets) == body + (b"\n" if program == "curl" else b"")


@pytest.mark.parametrize("program", _PROGRAMS)
def test_a_wrong_password_is_told(site: Site, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "_PASSWORD", "wrong")
    ran = _PROGRAMS[program](site, _message("never", b"x\n"), True)
    assert ran.returncode != 0
    said = (ran.stdout + ran.stderr).decode()
    assert "535" in said or "denied" in said, said


class Nullmailer:
    """nullmailer with its own queue: `nullmailer-inject` puts mail in, `nullmailer-send` hands it to the node."""

    def __init__(self, directory: Path, remotes: str, authority: Authority) -> None:
        self.root = Unpacked("nullmailer", directory, ["mail-of-null"])
        self.root.write("etc/nullmailer/me", "nullmailer.test\n")
        self.root.write("etc/nullmailer/defaultdomain", "example.test\n")
        self.root.write("etc/nullmailer/remotes", remotes, 0o600)
        self.root.write("etc/nullmailer/pausetime", "1\n")
        self.root.write("etc/ssl/certs/ca-certificates.crt", authority.file.read_text())
        for name in ("queue", "tmp", "failed"):
            (self.root.files / "var/spool/nullmailer" / name).mkdir(parents=True)
        self._log = directory / "nullmailer.log"
        prepare = "mkfifo /var/spool/nullmailer/trigger && exec /usr/sbin/nullmailer-send"
        self.program = Program(self.root.command("sh", "-c", prepare), self._log)

    def send(self, message: bytes) -> subprocess.CompletedProcess[bytes]:
        return self.root.inside(
            self.program.pid, "/usr/bin/nullmailer-inject", "-f", "alice@example.test", "bob@example.test", text=message
        )

    def waits(self) -> list[str]:
        return self.root.inside(self.program.pid, "ls", "/var/spool/nullmailer/queue").stdout.decode().split()

    def log(self) -> str:
        return self.program.log()


@pytest.fixture(scope="module", params=["trusted", "user"])
def nullmailer(request: pytest.FixtureRequest, site: Site) -> Iterator[Nullmailer]:
    trusted = f"localhost smtp --port={site.node.port}\n"
    login = f"--starttls --x509cafile={site.authority.file} --auth-login --user=alice '--pass={_PASSWORD}'"
    user = f"localhost smtp --port={site.submission_port} {login}\n"
    remotes = trusted if request.param == "trusted" else user
    peer = Nullmailer(site.place / f"nullmailer-{request.param}", remotes, site.authority)
    peer.program.start()
    peer.program.ready(lambda: "Rescanning queue" in peer.log(), "nullmailer looks at its queue")
    try:
        yield peer
    finally:
        peer.program.stop()


@pytest.mark.parametrize("name", _BODIES)
def test_nullmailer(site: Site, nullmailer: Nullmailer, name: str) -> None:
    subject = f"nullmailer {nullmailer.root.files.parent.name} {name}."
    ran = nullmailer.send(_message(subject, _BODIES[name]))
    assert ran.returncode == 0, ran.stderr.decode()
    octets = _arrived(site, subject)
    assert _body(octets) == _BODIES[name]
    until(lambda: not nullmailer.waits(), "nullmailer's queue is empty")
