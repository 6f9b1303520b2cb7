"""Doubts about programs and files of aliases: those that do not exist, or that the user who is to use them may not.

Only aliases in files and in listed maps are judged (`map_values`). What this process may not see is passed over. Their
mail is deferred until the program or the folder is there, so this is no reason to refuse the configuration.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from itertools import islice
from typing import Final

from postroad.config.finding import Finding
from postroad.config.locate import Path
from postroad.config.map_values import ENTRIES_MAX, FOUND_MAX, listed
from postroad.config.nobody import aliases_in_file
from postroad.config.options import alias_sources, map_options, outlet_options
from postroad.config.settings import Settings
from postroad.mail.route import Destination, Transport
from postroad.route import alias_file
from postroad.route.alias_file import AliasTarget, OutletTarget
from postroad.route.includes import IncludingTargets
from postroad.world.identity import account, owner
from postroad.world.problem import Problem

Named = Iterator[tuple[str, tuple[AliasTarget, ...]]]

_OWNER: Final = "owner:"
_MISSING: Final = (FileNotFoundError, NotADirectoryError)


def find(settings: Settings, now_s: float) -> Iterator[Finding]:
    options = outlet_options(settings)
    if not (options.programs or options.files):
        return
    if settings.aliases is not None:
        yield from _found(settings, ("aliases",), iter((aliases_in_file(settings) or {}).items()))
    reader, sources = IncludingTargets(options), alias_sources(settings)
    for index, each in enumerate(map_options(settings)):
        if each.name in settings.alias_maps:
            entries = islice(listed(each), ENTRIES_MAX)
            read = ((key, alias_file.targets_of(value, reader, sources[each.name])) for key, value in entries)
            named = ((key, targets) for key, targets in read if not isinstance(targets, str))
            yield from _found(settings, ("map", index), named)


def _found(settings: Settings, key: Path, named: Named) -> Iterator[Finding]:
    wrong = (
        (name, target.destination, why)
        for name, targets in named
        for target in targets
        if isinstance(target, OutletTarget) and (why := _fault(settings, target.destination))
    )
    for name, destination, why in islice(wrong, FOUND_MAX):
        text = f"The alias {name} leads to {destination.outlet[:100]}: {why}. Until this is corrected, such mail waits"
        yield Finding((key,), text, "Correct the path, or create what is missing")


def _fault(settings: Settings, destination: Destination) -> str:
    """Why a program or a file cannot be used; "" if it can, or if nobody can tell from here."""
    if destination.throws_away:
        return ""
    if destination.transport is Transport.PROGRAM:
        return _of_program(settings, destination)
    folder, is_maildir = os.path.dirname(destination.path), destination.transport is Transport.MAILDIR
    try:
        os.stat(folder)
    except _MISSING:
        return f"the folder {folder} does not exist"
    except OSError:
        return ""
    with contextlib.suppress(OSError):
        if stat.S_ISDIR(os.stat(destination.path).st_mode) is not is_maildir:
            return "it is a file" if is_maildir else "it is a folder; with / at the end it would be a Maildir"
    return ""


def _of_program(settings: Settings, destination: Destination) -> str:
    path = destination.command[0]
    try:
        found = os.stat(path)
    except _MISSING:
        return f"the program {path} does not exist"
    except OSError:
        return ""
    if not stat.S_ISREG(found.st_mode):
        return f"{path} is not a program"
    user = _user(settings, destination)
    if _may_run(path, found, user):
        return ""
    return f"the user {user} may not run {path}" if user else f"{path} may not be run"


def _user(settings: Settings, destination: Destination) -> str:
    """As whom the program runs; "" if that is this process."""
    by = destination.domain
    named = owner(by.removeprefix(_OWNER), settings.other_users.uid_min) if by.startswith(_OWNER) else ""
    return named or destination.rules.user or settings.user


def _may_run(path: str, program: os.stat_result, user: str) -> bool:
    if not user:
        return os.access(path, os.X_OK, effective_ids=True)
    known = account(user, "", 1)
    if isinstance(known, Problem):
        return True  # that there is no such user is a problem of its own
    if program.st_uid == known.uid:
        return bool(program.st_mode & stat.S_IXUSR)
    return bool(program.st_mode & (stat.S_IXGRP if program.st_gid in known.groups else stat.S_IXOTH))
