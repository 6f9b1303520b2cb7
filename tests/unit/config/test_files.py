"""The files, users and groups that the settings name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from postroad.accounts.accounts import hash_password
from postroad.config.load import load
from postroad.config.problem import ConfigProblem
from postroad.config.settings import Settings
from tests.unit import rights
from tests.unit.rights import folder_for_all

WHOLE = """\
hostname = "mail.example.org"
state_dir = "state"
aliases = "aliases"
[tls]
certificate = "tls.pem"
key = "tls.key"
[[tls.further]]
certificate = "other.pem"
[outbound.tls]
ca_file = "roots.pem"
[auth]
users = "users"
[[domain]]
name = "example.org"
recipients_file = "recipients"
deliver = "program"
command = ["/bin/cat"]
[[next_hop]]
domain = "*"
host = "smtp.example.net"
username = "example"
password_file = "password"
[log]
path = "log"
[srs]
domain = "example.org"
keys_file = "srs.keys"
"""


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def hashed() -> str:
    return hash_password("secret")


@pytest.fixture
def folder(authority: trustme.CA, hashed: str) -> Iterator[Path]:
    with folder_for_all() as path:
        yield filled(path, authority, hashed)


def filled(tmp_path: Path, authority: trustme.CA, hashed: str) -> Path:
    one, other = authority.issue_cert("mail.example.org"), authority.issue_cert("mail.example.net")
    one.cert_chain_pems[0].write_to_path(tmp_path / "tls.pem")
    one.private_key_pem.write_to_path(tmp_path / "tls.key")
    other.private_key_and_cert_chain_pem.write_to_path(tmp_path / "other.pem")
    other.private_key_pem.write_to_path(tmp_path / "other.key")
    authority.cert_pem.write_to_path(tmp_path / "roots.pem")
    (tmp_path / "users").write_text(f"# accounts\nalice@example.org:{hashed}:\n")
    (tmp_path / "recipients").write_text("# people\nalice\nbob\n")
    (tmp_path / "aliases").write_text("# aliases\nsales: alice, bob\n")
    (tmp_path / "password").write_text("secret\n")
    (tmp_path / "srs.keys").write_text("a secret\n")
    (tmp_path / "postroad.toml").write_text(WHOLE)
    return tmp_path


def problems(folder: Path) -> list[ConfigProblem]:
    found = load(folder / "postroad.toml")
    return found if isinstance(found, list) else []


def _remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _write(name: str, text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_text(text)

    return write


def _say(old: str, new: str) -> Callable[[Path], None]:
    return _write("postroad.toml", WHOLE.replace(old, new, 1))


def _copy(name: str, other: str) -> Callable[[Path], None]:
    return lambda folder: (folder / other).write_bytes((folder / name).read_bytes()) and None


MAP = '[[map]]\nname = "v"\nkind = "inline"\nentries = ["a b", "novalue"]\n[log]'
MAPS = "".join(
    f'[[map]]\nname = "{name}"\nkind = "text"\nfile = "{file}"\n'
    for name, file in (("v", "aliases"), ("w", "aliases2"))
)

CASES: list[tuple[str, Callable[[Path], None], tuple[str, int, str, str]]] = [
    ("no certificate", _remove("tls.pem"), ("postroad.toml", 5, "tls.certificate", "no such file")),
    (
        "an entry without value", _say("[log]", MAP),
        ("postroad.toml", 26, "map[1].entries[2]", "'novalue' has no value"),
    ),
    ("a map's file", _say("[log]", MAPS + "[log]"), ("postroad.toml", 30, "map[2].file", "no such file")),
    (
        "a line of smtp_sasl_password_maps", _write("password", "[smtp.example.net]:587 example:secret\n"),
        ("postroad.toml", 22, "next_hop[1].password_file", "is one of smtp_sasl_password_maps of Postfix"),
    ),
    ("no key", _remove("tls.key"), ("postroad.toml", 6, "tls.key", "no such file")),
    ("no PEM", _write("tls.pem", "x"), ("postroad.toml", 5, "tls.certificate", "no certificate in PEM")),
    ("the key of another", _copy("other.key", "tls.key"), ("postroad.toml", 6, "tls.key", "is not the key of")),
    ("no further one", _remove("other.pem"), ("postroad.toml", 8, "tls.further[1].certificate", "no such file")),
    (
        "no ciphers",
        _say('key = "tls.key"', 'key = "tls.key"\nciphers = "ROT13"'),
        ("postroad.toml", 7, "tls.ciphers", "OpenSSL knows none"),
    ),
    (
        "no ciphers for a next hop",
        _say('username = "example"', 'username = "example"\ntls_ciphers = "ROT13"'),
        ("postroad.toml", 22, "next_hop[1].tls_ciphers", "OpenSSL knows none"),
    ),
    ("no roots", _remove("roots.pem"), ("postroad.toml", 10, "outbound.tls.ca_file", "no such file")),
    ("no accounts", _remove("users"), ("postroad.toml", 12, "auth.users", "no such file")),
    ("a faulty account", _write("users", "\nalice\n"), ("users", 2, "auth.users", "name:hash:addresses")),
    ("no recipients", _remove("recipients"), ("postroad.toml", 15, "domain[1].recipients_file", "no such file")),
    (
        "a faulty recipient",
        _write("recipients", "a\nb c\n"),
        ("recipients", 2, "domain[1].recipients_file", "'b c'"),
    ),
    ("no aliases", _remove("aliases"), ("postroad.toml", 3, "aliases", "no such file")),
    ("a faulty alias", _write("aliases", "a: b\nc\n"), ("aliases", 2, "aliases", "'c'")),
    ("a program in an alias", _write("aliases", 'a: "|x"\n'), ("aliases", 1, "aliases", "programs")),
    ("no program", _say("/bin/cat", "/bin/no"), ("postroad.toml", 17, "domain[1].command", "/bin/no does not exist")),
    ("no password", _remove("password"), ("postroad.toml", 22, "next_hop[1].password_file", "no such file")),
    ("an empty password", _write("password", "\nx"), ("postroad.toml", 22, "next_hop[1].password_file", "no password")),
    ("no keys of senders", _remove("srs.keys"), ("postroad.toml", 27, "srs.keys_file", "no such file")),
    ("a short key", _write("srs.keys", "a secret\nx\n"), ("srs.keys", 2, "srs.keys_file", "fewer than 4")),
    ("no folder of the log", _say('"log"', '"a/log"'), ("postroad.toml", 24, "log.path", "The folder")),
    ("a file for a folder", _say('"state"', '"users"'), ("postroad.toml", 2, "state_dir", "is not a folder")),
    (
        "no such user",
        _say("[tls]", 'user = "no-such-user"\n[tls]'),
        ("postroad.toml", 4, "user", "no user 'no-such-user'"),
    ),
    (
        "no such group",
        _say("[tls]", 'user = "root"\ngroup = "no-such-group"\n[tls]'),
        ("postroad.toml", 5, "group", "no group 'no-such-group'"),
    ),
]


def test_all_files_in_order_are_no_problem(folder: Path) -> None:
    assert problems(folder) == []


@pytest.mark.parametrize(("change", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_file_that_cannot_be_used_is_named(
    change: Callable[[Path], None], expected: tuple[str, int, str, str], folder: Path
) -> None:
    change(folder)
    found = problems(folder)
    assert [(each.file.name, each.line, each.key) for each in found] == [expected[:3]]
    assert expected[3] in found[0].text
    assert found[0].remedy


def test_without_the_look_at_files_none_is_needed(tmp_path: Path) -> None:
    (tmp_path / "postroad.toml").write_text(WHOLE)
    assert isinstance(load(tmp_path / "postroad.toml", files=False), Settings)
    assert len(problems(tmp_path)) == 9


def test_an_alias_to_a_mailbox_that_is_not_there_is_named_with_its_line(folder: Path) -> None:
    (folder / "aliases").write_text("sales: alice\ninfo: carol\n")
    found = problems(folder)
    assert [(each.file, each.line) for each in found] == [(folder / "aliases", 2)]
    assert "'info' leads to 'carol' of no local domain" in found[0].text and "recipients" in found[0].remedy
    (folder / "recipients").write_text("alice\ncarol\n")
    assert problems(folder) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look with the rights of another user")
def test_root_looks_with_the_rights_of_the_user(folder: Path) -> None:
    (folder / "postroad.toml").write_text('user = "nobody"\n' + WHOLE)
    (folder / "state").mkdir()
    (folder / "state").chmod(0o777)
    (folder / "log").touch()
    (folder / "log").chmod(0o666)
    closed = ("tls.key", "other.pem", "users", "recipients", "aliases", "password")
    for name in ("tls.pem", "roots.pem", *closed):
        (folder / name).chmod(0o644)
    assert problems(folder) == []
    for name in closed:
        (folder / name).chmod(0o600)
    (folder / "state").chmod(0o755)
    found = problems(folder)
    text = "\n".join(map(str, found))
    assert all(f"{folder}/{name}" in text for name in closed), text
    assert f"cannot write to {folder}/state" in text
    assert os.geteuid() == 0


def test_a_functions_file_is_looked_for_and_not_run(folder: Path) -> None:
    file = folder / "postroad.toml"
    mine = folder / "mine.py"
    file.write_text(WHOLE.replace("[auth]\n", f'[auth]\nfunction = "{mine}:check"\n'))
    found = load(file)
    assert isinstance(found, list) and [problem.key for problem in found] == ["auth.function"]
    mine.write_text("raise SystemExit('run')\n")
    assert isinstance(load(file), Settings)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may enter, too."""
    with folder_for_all() as path:
        yield path


def test_a_state_folder_behind_a_closed_one_is_one_line(open_folder: Path) -> None:
    (open_folder / "closed" / "state").mkdir(parents=True)
    (open_folder / "closed").chmod(0)
    (open_folder / "postroad.toml").write_text('hostname = "mail.example.org"\nstate_dir = "closed/state"\n')
    with rights.as_ordinary_user():
        found = problems(open_folder)
    assert [problem.key for problem in found] == ["state_dir"]
    assert found[0].text.endswith(f"may not look into {open_folder}/closed/state (Permission denied)")
    (open_folder / "closed").chmod(0o755)


@pytest.mark.parametrize("made", ["", "folder", "file", "log"])
def test_a_log_that_the_user_cannot_write(made: str, open_folder: Path) -> None:
    (open_folder / "logs").mkdir()
    (open_folder / "logs").chmod(0o755)
    if made == "file":
        (open_folder / "logs" / "log").write_text("")
        (open_folder / "logs" / "log").chmod(0o600 if os.geteuid() == 0 else 0o400)
    if made == "log":
        (open_folder / "logs" / "log").mkdir()
    path = "nowhere/log" if made == "folder" else "logs/log"
    file = open_folder / "postroad.toml"
    file.write_text(f'hostname = "mail.example.org"\nstate_dir = "state"\nuser = "nobody"\n[log]\npath = "{path}"\n')
    if os.geteuid() != 0 and not made:
        (open_folder / "logs").chmod(0o500)
    (found,) = problems(open_folder)
    text = {
        "": f"cannot create a log file in {open_folder}/logs",
        "folder": f"The folder {open_folder}/nowhere",
        "file": f"cannot write {open_folder}/logs/log",
        "log": f"{open_folder}/logs/log is a folder",
    }[made]
    assert (found.line, found.key) == (5, "log.path") and text in found.text and found.remedy
    (open_folder / "logs").chmod(0o755)


def test_the_wrong_file_for_a_certificate_is_to_blame_itself(folder: Path) -> None:
    (folder / "postroad.toml").write_text(WHOLE.replace('"tls.pem"', '"tls.key"'))
    assert [problem.key for problem in problems(folder)] == ["tls.certificate"]


def test_a_certificate_and_a_key_that_are_not_there_are_both_said(folder: Path) -> None:
    text = WHOLE.replace('"tls.pem"', '"none.pem"').replace('"tls.key"', '"none.key"').replace('"users"', '"none"')
    (folder / "postroad.toml").write_text(text)
    assert [problem.key for problem in problems(folder)] == ["tls.certificate", "tls.key", "auth.users"]
