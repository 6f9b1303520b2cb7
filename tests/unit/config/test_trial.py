"""What shows only when it is tried: places to listen on, and the function."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from postroad.config import load as loading
from postroad.config.settings import Settings
from tests.peers.harness import ports
from tests.unit.rights import folder_for_all

RIGHT = """\
user = "{user}"
hostname = "mail.example.org"
state_dir = "state"
[auth]
function = "{function}"
[[domain]]
name = "example.org"
recipients = "any"
path = "mail/{{domain}}/{{local_part}}"
[[listener]]
name = "mx"
address = "{address}"
port = {port}
"""


def tried(
    folder: Path, *, address: str = "127.0.0.1", port: int = 0, function: str = "", running: bool = False,
    user: str = "",
) -> list[str]:
    """What `tried` says, each from its line on."""
    file = folder / "postroad.toml"
    file.write_text(RIGHT.format(address=address, port=port or ports.port(), function=function, user=user))
    settings = loading.load(file)
    assert isinstance(settings, Settings), [str(each) for each in settings]
    return [str(each).removeprefix(f"{file}:") for each in loading.tried(file, settings, running=running)]


def test_a_port_that_is_free_is_no_problem(tmp_path: Path) -> None:
    assert tried(tmp_path) == []


def test_a_port_in_use_is_found_unless_it_may_be_our_own(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        (line,) = tried(tmp_path, port=port)
        assert line.startswith(f"13: listener[1].port: 127.0.0.1:{port} is in use. Stop what listens there")
        assert tried(tmp_path, port=port, running=True) == []


@pytest.mark.parametrize("running", [True, False])
def test_an_address_of_another_machine_is_found(running: bool, tmp_path: Path) -> None:
    (line,) = tried(tmp_path, address="192.0.2.77", running=running)
    assert line.startswith("12: listener[1].address: 192.0.2.77:") and "is not an address of this machine" in line


def test_an_address_to_send_from_that_is_none_of_this_machine_is_found(tmp_path: Path) -> None:
    file = tmp_path / "postroad.toml"
    file.write_text(
        'hostname = "mail.example.org"\nstate_dir = "state"\n[outbound]\nsource_ipv4 = "192.0.2.76"\n'
        '[[next_hop]]\ndomain = "*"\nsource_ipv4 = ["127.0.0.1", "192.0.2.77 seven.example"]\n'
    )
    settings = loading.load(file)
    assert isinstance(settings, Settings), settings
    first, second = (str(each).removeprefix(f"{file}:") for each in loading.tried(file, settings, running=True))
    assert first.startswith("4: outbound.source_ipv4: 192.0.2.76 is not an address of this machine")
    assert second.startswith("7: next_hop[1].source_ipv4[2]: 192.0.2.77 is not an address of this machine")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def check(question:\n", "SyntaxError: "),
        ("def other(question): return None\n", "there is no such function"),
        ("import nonesuch_module\ndef check(question): return None\n", "No module named 'nonesuch_module'"),
        ("raise SystemExit(3)\n", "it ended with exit code 3"),
        ("def check(question): return None\n", ""),
    ],
)
def test_the_function_is_loaded(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(text)
    found = tried(tmp_path, function=f"{tmp_path}/mine.py:check")
    if not said:
        assert found == []
        return
    (line,) = found
    assert line.startswith("5: auth.function: The function cannot be loaded: ") and said in line


def test_the_function_is_loaded_outside_of_this_process(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        f"import os, pathlib\npathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
        "def check(q): pass\n"
    )
    assert tried(tmp_path, function=f"{tmp_path}/mine.py:check") == []
    assert int((tmp_path / "pid").read_text()) != os.getpid()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look with the rights of another user")
def test_a_python_that_the_user_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with folder_for_all() as folder:
        assert tried(folder, user="nobody") == []
        (folder / "closed").mkdir(mode=0o700)
        monkeypatch.setattr(sys, "executable", f"{folder}/closed/python3")
        (line,) = tried(folder, user="nobody")
    assert line.startswith(f"1: user: The user 'nobody' cannot run Postroad with {folder}/closed/python3: ")
    assert "/usr/bin/python3 -m venv" in line
