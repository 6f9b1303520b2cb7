"""The demonstration node of `make run`: everything it needs in one folder, made if it is missing.

A configuration with SMTP on 127.0.0.1:2525 and submission on 127.0.0.1:2587, the local domain example.test whose
recipients all get a Maildir, a certificate signed by itself, and one account with a random password. What is there is
kept, so that a second start finds the mail, the account and what its operator changed.
"""

from __future__ import annotations

import datetime
import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from postroad.world.problem import Problem

if TYPE_CHECKING:
    from postroad.config.settings import Settings

ACCOUNT: Final = "demo@example.test"

_CONFIGURATION: Final = """\
# The demonstration node of `make run`. Postroad makes this file once. You can change it, or remove it to get it again.
# `postroad config example` prints a configuration for real mail.

hostname = "mail.example.test"
state_dir = "."

[[listener]]
name = "mx"
address = "127.0.0.1"
port = 2525
role = "mx"

[[listener]]
name = "submission"
address = "127.0.0.1"
port = 2587
role = "submission"
tls = "required"

[tls]
certificate = "tls/certificate.pem"
key = "tls/key.pem"

[auth]
users = "users"

[[domain]]
name = "example.test"
recipients = "any"
deliver = "maildir"
path = "mail/{domain}/{local_part}"
"""


def prepare(folder: Path, now: datetime.datetime) -> Path | Problem:
    """Makes what is missing in `folder`; the path of the configuration, or why it could not be made."""
    from postroad.world.self_signed import make_self_signed

    configuration = folder / "postroad.toml"
    try:
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        if not configuration.exists():
            configuration.write_text(_CONFIGURATION, "utf-8")
        _account(folder)
    except OSError as error:
        where = str(error.filename or folder)
        return Problem(where, f"cannot be written ({error.strerror})", "Choose a folder that you may write to")
    names = ("mail.example.test", "localhost", "127.0.0.1")
    problem = make_self_signed(names, str(folder / "tls/certificate.pem"), str(folder / "tls/key.pem"), now)
    return problem or configuration


def _account(folder: Path) -> None:
    """The demo account with its password in a file of its owner's; a new password if one of the two is missing."""
    from postroad.cli.users import add_account

    note, users = folder / "demo-account", folder / "users"
    if note.exists() and users.exists():
        return
    password = secrets.token_urlsafe(12)
    add_account(users.absolute(), ACCOUNT, password, ("*@example.test",))
    note.unlink(missing_ok=True)
    descriptor = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{ACCOUNT}\n{password}\n")


def banner(folder: Path, configuration: Path, settings: Settings) -> str:
    """What a newcomer reads at each start: where the node listens, the account, three commands to try."""
    note = (folder / "demo-account").read_text("utf-8").splitlines()
    listeners = [
        f"  {each.name:<12} {', '.join(each.address)} port {each.port}, TLS: {settings.tls_of(each).value}"
        for each in settings.listener
    ]
    program = os.path.relpath(sys.argv[0])
    postroad = "postroad" if program.startswith("..") else program
    first = settings.listener[0]
    send = (
        f"import smtplib; smtplib.SMTP('{first.address[0]}', {first.port}).sendmail('me@example.net', "
        "'alice@example.test', 'Subject: Hello\\r\\n\\r\\nThe first message.\\r\\n')"
    )
    return "\n".join(
        [
            "",
            "Postroad, demonstration node. Its state is in " + f"{folder}/; stop it with Ctrl-C.",
            "",
            *listeners,
            f"  {'account':<12} {note[0]}  password {note[1]}",
            f"  {'mail':<12} {folder}/mail/example.test/<local-part>/",
            "",
            "Try in another terminal:",
            f'  python3 -c "{send}"',
            f"  {postroad} queue --config {configuration}",
            f"  {postroad} trace alice@example.test --config {configuration}",
            "",
        ]
    )
