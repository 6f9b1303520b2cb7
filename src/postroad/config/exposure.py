"""Finds files that hold secrets, or decide what the node runs, and that other users can read or change.

These are only warnings: a node with such a file works, and there may be a reason for the rights. Only the rights of the
file itself are checked. The rights of the node's own group are fine: Debian's key files are often readable for a group.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Final

from postroad.config.finding import Finding
from postroad.config.locate import Path
from postroad.config.settings import Settings

_OTHERS_READ: Final = stat.S_IROTH
_OTHERS_WRITE: Final = stat.S_IWOTH


def find(settings: Settings) -> Iterator[Finding]:
    """A warning for each secret that every user can read, and for each trusted file that every user can change."""
    for key, path, what in _secrets(settings):
        mode = _mode(path)
        if mode & (_OTHERS_READ | _OTHERS_WRITE):
            done = "change" if mode & _OTHERS_WRITE else "read"
            text = f"Every user of this machine can {done} {path}, which holds {what}"
            yield Finding((key,), text, f"Remove this right: chmod o= {path}")
    for key, path, what in _trusted(settings):
        if _mode(path) & _OTHERS_WRITE:
            text = f"Every user of this machine can change {path}, which {what}"
            yield Finding((key,), text, f"Remove this right: chmod o-w {path}")


def own_secrets(settings: Settings, file: FilePath) -> Iterator[Finding]:
    """The same for the configuration file itself, if a password stands in it."""
    for index, hop in enumerate(settings.next_hop):
        if hop.password and _mode(file) & (_OTHERS_READ | _OTHERS_WRITE):
            text = f"Every user of this machine can read {file}, which holds this password"
            remedy = f"Put the password into a password_file, or remove this right: chmod o= {file}"
            yield Finding((("next_hop", index, "password"),), text, remedy)


def _mode(path: FilePath) -> int:
    """The mode of what the path leads to; 0 if it cannot be known."""
    try:
        return os.stat(path).st_mode
    except OSError:
        return 0


def _secrets(settings: Settings) -> Iterator[tuple[Path, FilePath, str]]:
    """Key of the setting, file, and what it holds."""
    pairs: list[tuple[Path, FilePath | None, FilePath | None]] = [
        (("tls",), settings.tls.key, settings.tls.certificate),
        (("outbound", "tls"), settings.outbound.tls.key, settings.outbound.tls.certificate),
    ]
    for index, each in enumerate(settings.tls.further):
        pairs.append((("tls", "further", index), each.key, each.certificate))
    for here, key, certificate in pairs:
        if key is not None:
            yield (*here, "key"), key, "a private key"
        elif certificate is not None:
            yield (*here, "certificate"), certificate, "a private key"
    if settings.auth.users is not None:
        yield ("auth", "users"), settings.auth.users, "hashes of passwords"
    introspection = settings.auth.introspection
    if introspection.client_secret_file is not None:
        yield ("auth", "introspection", "client_secret_file"), introspection.client_secret_file, "a secret"
    if settings.srs.keys_file is not None:
        yield ("srs", "keys_file"), settings.srs.keys_file, "keys that sign senders"
    if settings.batv.keys_file is not None:
        yield ("batv", "keys_file"), settings.batv.keys_file, "keys that sign senders"
    for index, domain in enumerate(settings.domain):
        if domain.secret_file is not None:
            yield ("domain", index, "secret_file"), domain.secret_file, "a secret"
        if domain.authorization_file is not None:
            yield ("domain", index, "authorization_file"), domain.authorization_file, "a secret"
        if domain.password_file is not None:
            yield ("domain", index, "password_file"), domain.password_file, "a password"
    for index, hop in enumerate(settings.next_hop):
        if hop.password_file is not None:
            yield ("next_hop", index, "password_file"), hop.password_file, "a password"
        if hop.token_file is not None:
            yield ("next_hop", index, "token_file"), hop.token_file, "a token"


def _trusted(settings: Settings) -> Iterator[tuple[Path, FilePath, str]]:
    """Key of the setting, file, and what the node does by it."""
    if settings.aliases is not None:
        yield ("aliases",), settings.aliases, "decides where mail goes"
    function = settings.auth.function.rpartition(":")[0]
    if function.endswith(".py"):
        yield ("auth", "function"), FilePath(function), "the node runs"
    for index, hop in enumerate(settings.next_hop):
        if hop.token_command:
            yield ("next_hop", index, "token_command"), FilePath(hop.token_command[0]), "the node runs"
    for index, domain in enumerate(settings.domain):
        here: Path = ("domain", index)
        if domain.command:
            yield (*here, "command"), FilePath(domain.command[0]), "the node runs"
        if domain.recipients_file is not None:
            yield (*here, "recipients_file"), domain.recipients_file, "decides which mailboxes exist"
        if domain.quota_file is not None:
            yield (*here, "quota_file"), domain.quota_file, "decides how much mailboxes hold"
    for index, relayed in enumerate(settings.relay.domain):
        if relayed.recipients_file is not None:
            key: Path = ("relay", "domain", index, "recipients_file")
            yield key, relayed.recipients_file, "decides which mailboxes exist"
