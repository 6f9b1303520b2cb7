"""Tries what a look at the settings cannot show: the addresses to listen on, and the function that knows the accounts.

It is for `postroad check`; a node tries these things itself at its start and reload. What always holds: a bound address
is released at once, and nobody can connect to it meanwhile; the operator's module is loaded in a process of its own,
which has a time limit and no more rights than the node will have.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Final

from postroad.config.contradictions import listeners
from postroad.config.finding import Finding
from postroad.config.listening import UNIX
from postroad.config.locate import Path
from postroad.config.settings import Settings
from postroad.world import identity, system
from postroad.world.problem import Problem, user_name

LOAD_S: Final = 20.0  # how long the module of a function may take to be loaded

# Run by the interpreter that runs the node's workers, too. What is wrong goes to stderr: a text to exit with does.
_LOAD: Final = (
    "import sys; from postroad.world.functions import load; found = load(sys.argv[1]); "
    "sys.exit(found if isinstance(found, str) else 0)"
)


def places(settings: Settings, *, running: bool) -> Iterator[tuple[str, Problem]]:
    """Places that cannot be listened on. `running`: a node runs, so that a port in use may well be its own. Whether the
    port is one for root only is not looked at: who checks need not be who starts."""
    for listener in settings.listener:
        for place in listeners.places(listener):
            if place[0].startswith(UNIX):
                continue
            problem = system.bindable(*place)
            if problem is not None and (system.blames_address(problem) or not running):
                yield listeners.shown(place), problem


def sources(settings: Settings) -> Iterator[Finding]:
    """Addresses to connect from that are none of this machine: mail waits for them."""
    named: list[tuple[Path, str]] = [
        (("outbound", key), getattr(settings.outbound, key)) for key in ("source_ipv4", "source_ipv6")
    ]
    for index, hop in enumerate(settings.next_hop):
        for key in ("source_ipv4", "source_ipv6"):
            named += [(("next_hop", index, key, place), entry) for place, entry in enumerate(getattr(hop, key))]
    for path, entry in named:
        problem = system.bindable(entry.split()[0], 0) if entry else None
        if problem is not None and system.blames_address(problem):
            text = f"{entry.split()[0]} {problem.text}, so nothing can be sent from it"
            yield Finding((path, path[:-1]), text, "Give the address to a network interface, or write another one")


def program(settings: Settings) -> Iterator[Finding]:
    """Why `user` cannot run the Python that this is: one below /root, for instance."""
    if not settings.user:
        return
    said = system.tried_as(settings.user, settings.group, [sys.executable, "-c", "import postroad.node.main"], LOAD_S)
    if said:
        text = f"The user {settings.user!r} cannot run Postroad with {sys.executable}: {said}"
        yield Finding((("user",),), text, _INSTALL)


_INSTALL: Final = (
    "Install it with a Python that every user can read: begin with `/usr/bin/python3 -m venv /opt/postroad` (README.md)"
)


def other_users(settings: Settings, *, running: bool) -> Iterator[Finding]:
    """Domains whose mail is delivered as another user, if who checks is not root, as who starts must be."""
    if os.getuid() == 0 or running:
        return
    named: list[Path] = [("domain", index, "user") for index, domain in enumerate(settings.domain) if domain.user]
    if settings.alias_targets.user:
        named.append(("alias_targets", "user"))
    for key in named:
        yield Finding(
            (key,),
            f"Only a node that is started as root can deliver as another user, and this is {user_name()!r}",
            "Start and check the node as root, with `user` set at the top of the file, or remove this user",
        )


def own_forward_file(settings: Settings, *, running: bool) -> Iterator[Finding]:
    """Domains in which only the user of the node may have a file ``.forward``, if that is root, or nobody."""
    if running or settings.user or identity.own_account() is not None:
        return
    for index, domain in enumerate(settings.domain):
        if domain.forward_files and not domain.user:
            yield Finding(
                (("domain", index, "forward_files"),),
                f"Without `user`, only the user of the node can have a .forward file, and {user_name()!r} cannot",
                'Add user = "{local_part}" to the domain, or start the node as another user',
            )


def functions(settings: Settings) -> Iterator[Finding]:
    """Why the function of `[auth]`, or that of a map, cannot be loaded."""
    named: list[tuple[Path, str]] = [(("auth", "function"), settings.auth.function)]
    named += [(("map", index, "function"), each.function) for index, each in enumerate(settings.map)]
    for path, function in named:
        if not function:
            continue
        said = system.tried_as(settings.user, settings.group, [sys.executable, "-c", _LOAD, function], LOAD_S)
        if said:
            yield Finding((path,), f"The function cannot be loaded: {said}", "Correct the module, or the name")
