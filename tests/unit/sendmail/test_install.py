"""Installing the program: it stands by itself, and what belongs to others stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from postroad.sendmail import install
from postroad.sendmail.install import LINKS


def _installed(prefix: Path, **given: object) -> list[str]:
    return install.install(prefix, "/nowhere/spool", sys.executable, **given)  # type: ignore[arg-type]


def test_each_name_leads_to_the_program_which_needs_nothing_else(tmp_path: Path) -> None:
    for _ in range(2):  # once more is no fault
        assert _installed(tmp_path) == []
    for link in LINKS:
        assert (tmp_path / link).is_symlink() and not os.readlink(tmp_path / link).startswith("/")
        assert (tmp_path / link).resolve() == (tmp_path / "lib/postroad/sendmail").resolve()
    command = [str(tmp_path / "bin/mailq")]
    elsewhere = {"PYTHONPATH": "/nowhere"}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", env=elsewhere)
    assert (ended.returncode, ended.stderr) == (75, "mailq: the node is not running\n")
    closed = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" -bp <&- >&- 2>&-', str(tmp_path / "sbin/sendmail")], check=False, cwd="/"
    )
    assert closed.returncode == 75, "also if nobody reads what it says"
    first = (tmp_path / "lib/postroad/sendmail").read_text().splitlines()[0]
    assert first == f"#!{sys.executable} -IS"


@pytest.mark.parametrize("link", LINKS)
def test_the_program_of_another_mail_server_stays_unless_told(tmp_path: Path, link: str) -> None:
    (tmp_path / link).parent.mkdir(parents=True)
    (tmp_path / link).write_text("another")
    assert _installed(tmp_path) == [str(tmp_path / link)]
    assert (tmp_path / link).read_text() == "another" and not (tmp_path / "lib/postroad").exists()
    assert _installed(tmp_path, replace=True) == []
    assert (tmp_path / link).is_symlink()


def test_in_a_package_the_paths_are_those_of_later(tmp_path: Path) -> None:
    assert _installed(Path("/usr"), root=tmp_path) == []
    program = tmp_path / "usr/lib/postroad/sendmail"
    assert "sys.path.append('/usr/lib/postroad')" in program.read_text()
    assert os.readlink(tmp_path / "usr/sbin/sendmail") == "../lib/postroad/sendmail"
    assert str(tmp_path) not in program.read_text()


def test_the_modules_that_are_installed_import_nothing_that_is_not(tmp_path: Path) -> None:
    """Each of them can be imported by Python alone, without site-packages."""
    assert _installed(tmp_path) == []
    names = sorted(path.stem for path in (tmp_path / "lib/postroad/postroad/sendmail").glob("*.py"))
    code = f"import sys; sys.path.append({str(tmp_path / 'lib/postroad')!r})\n" + "".join(
        f"import postroad.sendmail.{name}\n" for name in names if name != "__init__"
    )
    assert "main" in names and "install" not in names
    subprocess.run([sys.executable, "-IS", "-c", code], check=True, capture_output=True)
