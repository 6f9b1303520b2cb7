"""Installs the program: `python -m postroad.sendmail.install --prefix /usr`, or `make install-sendmail PREFIX=/usr`.

The installed program needs only the system's Python and nothing of the node's folder, so that every user can run it. It
is `PREFIX/lib/postroad/sendmail` with the modules of this room beside it; `PREFIX/sbin/sendmail`,
`PREFIX/lib/sendmail`, `PREFIX/bin/mailq` and `PREFIX/bin/newaliases` are links to it. With -I and -S Python reads
neither the caller's environment nor site-packages, which is safer and starts faster.

If a file that is not ours is in the place of a link, it stays, and nothing is installed, unless --replace is given. The
program itself does not use this module.
"""

from __future__ import annotations

import argparse
import compileall
import os
import shutil
import sys
from pathlib import Path
from typing import Final

LINKS: Final = ("sbin/sendmail", "lib/sendmail", "bin/mailq", "bin/newaliases")
HOME: Final = "lib/postroad"
_LEFT_OUT: Final = ("install.py",)
_PROGRAM: Final = """\
#!{python} -IS
# Postroad's sendmail, mailq and newaliases (docs/sendmail.md).
import sys

sys.path.append({home!r})
from postroad.sendmail.main import main

sys.exit(main({folder!r}, sys.argv))
"""


def install(prefix: Path, folder: str, python: str, *, root: Path | None = None, replace: bool = False) -> list[str]:
    """Install under `prefix`. `folder`: the one that the node shares with users. `root`: the folder in which a package
    is built, in place of /. What stands in the way, as lines; nothing is installed then."""
    place = prefix if root is None else root / prefix.relative_to("/")
    home = place / HOME
    in_the_way = [str(place / link) for link in LINKS if _is_foreign(place / link, home)]
    if in_the_way and not replace:
        return in_the_way
    package = home / "postroad" / "sendmail"
    if package.parent.exists():
        shutil.rmtree(package.parent)
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text('"""The part of Postroad that sendmail needs."""\n')
    for module in sorted(Path(__file__).parent.glob("*.py")):
        if module.name not in _LEFT_OUT:
            shutil.copyfile(module, package / module.name)
    for path in (home, package.parent, package):
        path.chmod(0o755)
    for path in package.parent.rglob("*.py"):
        path.chmod(0o644)
    compileall.compile_dir(str(package.parent), quiet=1, stripdir=str(place), prependdir=str(prefix))
    program = home / "sendmail"
    program.write_text(_PROGRAM.format(python=python, home=str(prefix / HOME), folder=folder))
    program.chmod(0o755)
    for link in LINKS:
        _link(place / link, program)
    return []


def _is_foreign(link: Path, home: Path) -> bool:
    """Whether something that we have not installed stands there."""
    return os.path.lexists(link) and not (link.is_symlink() and link.resolve() == (home / "sendmail").resolve())


def _link(link: Path, program: Path) -> None:
    """Put the link in place at once, so that no caller ever finds nothing."""
    link.parent.mkdir(parents=True, exist_ok=True)
    new = link.with_name(f".{link.name}.postroad")
    new.unlink(missing_ok=True)
    new.symlink_to(os.path.relpath(program, link.parent))
    new.replace(link)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m postroad.sendmail.install", description="Install sendmail.")
    parser.add_argument("--prefix", type=Path, default=Path("/usr/local"), help="where to install [/usr/local]")
    parser.add_argument(
        "--folder", default="/var/spool/postroad", help="`folder` under [sendmail] of the node [/var/spool/postroad]"
    )
    parser.add_argument("--python", default=_python(), help=f"the Python that runs it [{_python()}]")
    parser.add_argument("--root", type=Path, help="the folder in which a package is built, in place of /")
    parser.add_argument("--replace", action="store_true", help="replace the programs of another mail server")
    given = parser.parse_args()
    if not given.prefix.is_absolute() or not given.folder.startswith("/"):
        parser.error("write --prefix and --folder as absolute paths")
    in_the_way = install(given.prefix, given.folder, given.python, root=given.root, replace=given.replace)
    for path in in_the_way:
        print(f"{path} belongs to another program; give REPLACE=yes (--replace) to replace it", file=sys.stderr)
    return 1 if in_the_way else 0


def _python() -> str:
    """The interpreter without its virtual environment: every user must be able to run it."""
    return os.path.realpath(sys.executable)


if __name__ == "__main__":
    sys.exit(main())
