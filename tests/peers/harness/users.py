"""Users of this machine that a test needs, made for as long as it runs."""

from __future__ import annotations

import contextlib
import pwd
import subprocess
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from tests.peers.harness import need, ports


@contextlib.contextmanager
def users(
    *names: str, system: Collection[str] = (), homes: Mapping[str, Path] | None = None, strangers: bool = True
) -> Iterator[None]:
    """Users without homes; those of `system` have a low number, `homes` says where a home would be. While one test has
    them no other one on this machine makes or removes any. Without `strangers` the test does not run if somebody of
    this machine has one of the `names`."""
    need.root()
    homes = homes or {}
    with ports.alone("users"):
        made = []
        try:
            for name in (*names, *system):
                try:
                    pwd.getpwnam(name)
                    if name in names and not strangers:
                        need.missing(f"this machine has a user {name}")
                except KeyError:
                    options = ["--no-create-home", *(["--system"] if name in system else [])]
                    options += ["--home-dir", str(homes[name])] if name in homes else []
                    subprocess.run([need.program("useradd"), *options, name], check=True)
                    made.append(name)
            yield
        finally:
            for name in made:
                subprocess.run(["userdel", name], check=False, capture_output=True)
