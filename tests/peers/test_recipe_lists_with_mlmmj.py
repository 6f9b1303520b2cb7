"""docs/recipes/lists-with-mlmmj.md, with the real mlmmj."""

from __future__ import annotations

import contextlib
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.peers.harness import need, ports
from tests.peers.harness.process import until
from tests.peers.harness.recipe import Machine, Page
from tests.peers.harness.remote import Remote
from tests.peers.harness.users import users

NODE, LISTS = "prnode", "prlists"


def test_the_page_is_true(place: Path) -> None:
    need.root()
    for program in ("swaks", "mlmmj-receive", "mlmmj-make-ml"):
        need.program(program)
    place.chmod(0o755)
    mx, back = ports.port(), ports.port()
    lists = place / "machine/var/spool/mlmmj"
    lists.mkdir(parents=True)
    with users(system=[NODE]), _removed_afterwards(LISTS) as is_there, \
            Remote(address=ports.address(), port=ports.port()) as world:
        machine = Machine(Page("lists-with-mlmmj"), place / "machine", {
            "/var/lib/postroad": str(place / "machine/state"), "/var/spool/mlmmj": str(lists),
            'user = "postroad"': f'user = "{NODE}"', 'user = "mlmmj"': f'user = "{LISTS}"',
            "no-create-home mlmmj": f"no-create-home {LISTS}", "-c mlmmj": f"-c {LISTS}",
            "port = 25\n": f"port = {mx}\n", "--port 25": f"--port {mx}",
            "port = 8026\n": f"port = {back}\n", "echo 8026": f"echo {back}",
            "--server lists.example.org": "--server 127.0.0.1",
        }, added=f'\n[[next_hop]]\ndomain = "*"\nhost = "{world.address}"\nport = {world.port}\ntls = "never"\n')
        add_user, *commands = machine.page.commands("Commands")
        if not is_there:
            machine.run(add_user)
        with machine:
            for command in commands:
                machine.run(command)
            member, post, trace, trace_copy, subscribe, trace_asked, unknown = machine.page.commands(
                "How to see that it works"
            )
            machine.run(member)
            machine.run(post)
            machine.until(trace, "was delivered to program:|/usr/bin/mlmmj-receive")
            machine.until(trace_copy, "relayed")
            machine.run(subscribe)
            machine.until(trace_asked, "relayed")
            assert "550 5.1.1" in machine.run(unknown, code=None)
            until(lambda: len(world.transactions) >= 2, "both messages came")
            heard = {(each.mail.split()[0], each.rcpt) for each in world.transactions}
            copy = ("FROM:<dev+bounces-1-carol=example.net@lists.example.org>", ("TO:<carol@example.net>",))
            assert copy in heard and ("TO:<dave@example.net>",) in {rcpt for _, rcpt in heard}


@contextlib.contextmanager
def _removed_afterwards(name: str) -> Iterator[bool]:
    """Whether the user is there. If not, the page makes him."""
    is_there = any(each.pw_name == name for each in pwd.getpwall())
    try:
        yield is_there
    finally:
        if not is_there:
            subprocess.run(["userdel", name], check=False, capture_output=True)
