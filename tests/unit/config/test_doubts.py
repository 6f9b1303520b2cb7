"""What is allowed and yet hardly meant."""

from __future__ import annotations

import datetime
import os
import socket
import tempfile
import time
from pathlib import Path

import pytest
import trustme

from postroad.config.load import parse, warnings
from postroad.config.settings import Settings

RIGHT = """\
hostname = "mail.example.org"
state_dir = "state"
user = "root"

[[domain]]
name = "example.org"
recipients = "any"
path = "mail/{domain}/{local_part}"
"""


def told(folder: Path, text: str, now_s: float | None = None) -> list[str]:
    """The warnings, each from its key on."""
    file = folder / "postroad.toml"
    file.write_text(text)
    found = parse(text, file)
    assert isinstance(found, Settings), [str(each) for each in found]
    lines = map(str, warnings(file, found, time.time() if now_s is None else now_s))
    return [line.partition(": ")[2] for line in lines]


def test_of_what_is_as_it_should_be_nothing_is_said(tmp_path: Path) -> None:
    assert told(tmp_path, RIGHT) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mail", "'mail' is not a fully qualified name"),
        ("localhost", "'localhost' is not a fully qualified name"),
        ("mail.localdomain", "'mail.localdomain' is a name that the Internet does not know"),
        ("mail.home.arpa", "'mail.home.arpa' is a name that the Internet does not know"),
    ],
)
def test_a_hostname_that_nobody_else_knows(tmp_path: Path, name: str, text: str) -> None:
    (line,) = told(tmp_path, RIGHT.replace("mail.example.org", name))
    assert line.startswith(f"hostname: {text}. Set the name")


def test_a_certificate_out_of_its_time(tmp_path: Path) -> None:
    until = datetime.datetime(2031, 3, 9, 12, tzinfo=datetime.UTC)
    authority = trustme.CA()
    authority.issue_cert("mail.example.org", not_after=until).private_key_and_cert_chain_pem.write_to_path(
        tmp_path / "tls.pem"
    )
    text = f'{RIGHT}[tls]\ncertificate = "tls.pem"\n'
    end_s = until.timestamp()
    for now_s, said in (
        (end_s - 8 * 86_400, ""),
        (end_s - 6 * 86_400, "the certificate expires on 2031-03-09 12:00 UTC."),
        (end_s, "the certificate has expired on 2031-03-09 12:00 UTC."),
        (0, "the certificate is good from "),
    ):
        lines = told(tmp_path, text, now_s)
        assert [said in line and line.startswith("tls.certificate: ") for line in lines] == ([True] if said else [])


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://login.example.org/introspect", True), ("http://192.0.2.1:8080/", True),
        ("https://login.example.org/introspect", False), ("http://localhost:8080/", False),
        ("http://127.0.0.9/", False), ("http://[::1]/", False),
    ],
)  # fmt: skip
def test_tokens_in_the_plain(tmp_path: Path, url: str, warned: bool) -> None:
    lines = told(tmp_path, f'{RIGHT}[auth.introspection]\nurl = "{url}"\n')
    assert [line.startswith("auth.introspection.url: Tokens") for line in lines] == ([True] if warned else [])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look with the rights of another user")
def test_a_dovecot_that_is_not_there(tmp_path: Path) -> None:
    (line,) = told(tmp_path, RIGHT.replace("[[domain]]", '[auth]\ndovecot = "none"\n[[domain]]', 1))
    assert line.startswith(f"auth.dovecot: There is no socket {tmp_path}/none")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "none"))
        assert told(tmp_path, RIGHT.replace("[[domain]]", '[auth]\ndovecot = "none"\n[[domain]]', 1)) == []


@pytest.mark.parametrize(
    ("recipients", "warned"), [('"all"', True), ('["*"]', True), ('["all", "bob"]', False), ('"any"', False)]
)
def test_a_word_that_means_one_mailbox(tmp_path: Path, recipients: str, warned: bool) -> None:
    lines = told(tmp_path, RIGHT.replace('"any"', recipients))
    assert [line.partition(":")[0] for line in lines] == ["domain[1].recipients"] * warned


@pytest.mark.parametrize(
    ("address", "host", "warned"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "localhost", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("::", "localhost", True),
        ("192.0.2.1", "mail.example.org", True),
        ("192.0.2.1", "127.0.0.1", False),
        ("127.0.0.1", "smtp.example.net", False),
    ],
)
def test_a_next_hop_that_is_this_node(tmp_path: Path, address: str, host: str, warned: bool) -> None:
    listener = f'[[listener]]\nname = "in"\naddress = "{address}"\nport = 2525\n'
    hop = f'[[next_hop]]\ndomain = "*"\nhost = "{host}"\nport = 2525\n'
    lines = told(tmp_path, RIGHT + listener + hop)
    assert [line.partition(": mail would")[0] for line in lines] == [
        f"next_hop[1].host: The host {host}:2525 is the listener 'in' of this node"
    ] * warned
    assert told(tmp_path, RIGHT + listener + hop.replace("2525", "2526")) == []


def test_a_folder_in_which_no_maildir_can_be_made(tmp_path: Path) -> None:
    for each in (tmp_path, *tmp_path.parents):
        if each.is_relative_to(tempfile.gettempdir()) and each != Path(tempfile.gettempdir()):
            each.chmod(each.stat().st_mode | 0o055)
    text = RIGHT.replace('user = "root"', 'user = "nobody"')
    mail = tmp_path / "mail"
    for made, way in ((tmp_path, tmp_path), (mail, mail), (mail / "example.org", mail)):
        made.mkdir(exist_ok=True)
        (line,) = told(tmp_path, text)
        assert line.startswith(f"domain[1].path: The user 'nobody' cannot make Maildirs in {way}. "), line
    os.chown(mail, 65534, -1)
    assert told(tmp_path, text) == []
    (tmp_path / "hidden").mkdir(mode=0o700)
    (tmp_path / "hidden" / "mail").mkdir(mode=0o777)
    (line,) = told(tmp_path, text.replace('"mail/', '"hidden/mail/'))
    assert line.startswith(f"domain[1].path: The user 'nobody' cannot make Maildirs in {tmp_path}/hidden. "), line
