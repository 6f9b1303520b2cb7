"""Commands of root: the spool with the rights of its owner, files and folders of root's with root's own."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from postroad.operate.rights import Rights
from tests.unit.rights import folder_for_all

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has the rights of several users")

NOBODY = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
POSTROAD = str(Path(sys.executable).with_name("postroad"))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    with folder_for_all() as folder:
        yield folder


@pytest.fixture
def config(open_folder: Path) -> Path:
    """A configuration that only root may read, of a node whose user is nobody."""
    assert NOBODY is not None
    (open_folder / "state").mkdir()
    os.chown(open_folder / "state", NOBODY.pw_uid, NOBODY.pw_gid)
    file = open_folder / "postroad.toml"
    file.write_text(
        'hostname = "mail.example.org"\nstate_dir = "state"\nuser = "nobody"\n[[listener]]\nname = "a"\n'
        'address = "unix:/nowhere/a"\n[[domain]]\nname = "example.org"\nrecipients = "any"\n'
        'path = "mail/{local_part}"\n'
    )
    file.chmod(0o600)
    return file


@pytest.fixture
def private(open_folder: Path) -> Path:
    """A folder that only root may enter."""
    folder = open_folder / "private"
    folder.mkdir(mode=0o700)
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "POSTROAD_CONFIG"}
    command = [POSTROAD, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def exported_mail(folder: Path, name: str, size: int) -> None:
    """A message as `postroad spool export` writes it."""
    import hashlib

    content = b"Subject: x\r\n\r\n" + b"x" * 70 + b"\r\n" * ((size - 84) // 2)
    (folder / f"{name}.eml").write_bytes(content)
    envelope = {
        "format": "postroad-mail-1", "id": name, "reverse_path": "a@example.org",
        "recipients": [{"address": "b@example.org"}],
        "accepted_us": 1_700_000_000_000_000, "size": len(content), "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip
    (folder / f"{name}.json").write_text(json.dumps(envelope))
    for each in folder.iterdir():
        each.chmod(0o600)


def test_rights_change_and_come_back(config: Path) -> None:
    assert NOBODY is not None
    rights = Rights(config.parent / "state")
    before = (os.geteuid(), os.getegid(), os.getgroups())
    with rights.as_owner():
        assert (os.geteuid(), os.getegid(), os.getgroups()) == (NOBODY.pw_uid, NOBODY.pw_gid, [NOBODY.pw_gid])
        with pytest.raises(ZeroDivisionError), rights.as_caller():
            assert (os.geteuid(), os.getegid(), os.getgroups()) == before
            raise ZeroDivisionError
        assert os.geteuid() == NOBODY.pw_uid
    assert (os.geteuid(), os.getegid(), os.getgroups()) == before


def test_the_owner_is_root_itself(tmp_path: Path) -> None:
    with Rights(tmp_path).as_owner():
        assert os.geteuid() == 0


def test_a_command_in_a_folder_that_the_node_may_not_enter(config: Path, private: Path) -> None:
    (private / "postroad.toml").write_text(config.read_text().replace('"state"', f'"{config.parent}/state"'))
    (private / "postroad.toml").chmod(0o600)
    (config.parent / "state" / "spool").mkdir()
    os.chown(config.parent / "state" / "spool", 65534, 65534)
    for arguments in (("queue",), ("queue", "retry", "--all"), ("queue", "hold", "x@example.org"), ("spool", "check")):
        ended = run(private, *arguments)
        assert "postroad.toml" not in ended.stderr, (arguments, ended.stderr)
    assert run(private, "queue").stdout == "The queue is empty.\n"


def test_import_and_export_open_files_as_who_called(config: Path, private: Path) -> None:
    exported_mail(private, "003nqk8n0000", 200)
    exported_mail(private, "003nqk8n0007", 3_000_000)
    ended = run(private, "spool", "import", str(private), "--config", str(config))
    assert ended.returncode == 0, ended.stderr
    assert "imported 2 of 2 messages" in ended.stderr
    assert len(list(private.glob("*.json.imported"))) == 2
    spool = config.parent / "state" / "spool"
    assert {each.stat().st_uid for each in spool.rglob("*")} == {65534}, "the node must be able to open all of it"
    out = private / "out"
    ended = run(private, "spool", "export", str(out), "--all", "--config", str(config))
    assert ended.returncode == 0, ended.stderr
    assert sorted(each.stat().st_size for each in out.glob("*.eml")) == [200, 3_000_000]
    assert {each.stat().st_uid for each in spool.rglob("*")} == {65534}
    ended = run(private, "spool", "import", str(private), "--config", str(config))
    assert "was imported before" in ended.stdout and "imported 0 of 2" in ended.stderr


def test_export_leaves_the_owner_of_a_folder_as_it_is(config: Path, private: Path) -> None:
    exported_mail(private, "003nqk8n0000", 200)
    run(private, "spool", "import", str(private), "--config", str(config))
    run(private, "spool", "export", str(private), "--all", "--config", str(config))
    assert private.stat().st_uid == 0


def test_a_folder_that_may_not_be_read_is_named(config: Path, private: Path) -> None:
    exported_mail(private, "003nqk8n0000", 200)
    script = (
        "import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "from postroad.operate.mailfiles import found, UnfitFile\nfrom pathlib import Path\n"
        "try: print(found((Path(sys.argv[1]),)))\nexcept UnfitFile as error: print(error)"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(private)], capture_output=True, text=True, check=False)
    assert ended.stdout == f"{private}: Permission denied\n", ended.stderr


def test_a_configuration_that_may_not_be_read_is_named_with_its_path(config: Path, private: Path) -> None:
    script = (
        "import os, sys; os.chdir(sys.argv[1]); os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "os.execv(sys.argv[2], [sys.argv[2], 'queue', *sys.argv[3:]])"
    )
    for given, said in ((("--config", "postroad.toml"), f"{config}"), ((), "nor /etc/postroad/postroad.toml")):
        folder = config.parent if given else private
        ended = subprocess.run(
            [sys.executable, "-c", script, str(folder), POSTROAD, *given], capture_output=True, text=True, check=False
        )
        assert ended.returncode == 78
        assert said in ended.stderr, ended.stderr


def test_who_may_not_read_is_told_who_may(config: Path, private: Path) -> None:
    for folder in (config.parent / "state" / "spool", config.parent / "state" / "run"):
        folder.mkdir(mode=0o700)
        os.chown(folder, 1, 1)
    owner = pwd.getpwuid(1).pw_name
    config.chmod(0o644)
    (config.parent / "state").chmod(0o755)
    for arguments in (("queue",), ("spool", "check")):
        ended = subprocess.run(
            [POSTROAD, *arguments, "--config", str(config)],
            cwd=config.parent, user=65534, group=65534, extra_groups=[], capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert f"Permission denied. Run this as root or as the user {owner}." in ended.stderr, ended
    ended = subprocess.run(
        [POSTROAD, "queue"],
        cwd=private, user=65534, group=65534, extra_groups=[], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "There is neither a postroad.toml in" in ended.stderr and "Give the path by --config" in ended.stderr


def test_an_owner_who_may_not_enter_the_folder_of_python(
    config: Path, private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Python below /root: modules that are loaded later would not be found, which told nobody why."""
    monkeypatch.setattr(os, "__file__", str(private / "os.py"))
    before = os.geteuid()
    with pytest.raises(PermissionError, match=f"may not enter {private}"), Rights(config.parent / "state").as_owner():
        pass
    assert os.geteuid() == before
