"""`postroad submit`: hands a message to the running node, for programs and tests on this machine.

Exit codes are those of sysexits.h: 0 the node has the message, 64 wrong usage, 65 the message cannot be taken as it is,
67 a recipient was refused, 69 the message was refused, 75 not now (also if no node runs), 77 no right to open the
node's socket, 78 the configuration is wrong.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final, NoReturn

import click

from postroad.cli.command import who
from postroad.cli.options import config_option, settings_of

EX_USAGE: Final = 64
EX_DATAERR: Final = 65
EX_NOUSER: Final = 67
EX_UNAVAILABLE: Final = 69
EX_TEMPFAIL: Final = 75
EX_NOPERM: Final = 77


@click.command()
@click.option(
    "-f", "--from", "sender", metavar="ADDRESS",
    help="The sender of the envelope; \"<>\" or \"\" for none  [default: you, at the node's hostname]",
)  # fmt: skip
@click.option(
    "--verp", "with_verp", is_flag=True,
    help='Send to each recipient with a sender of its own, such as "list+ada=example.net@example.org".',
)
@click.option(
    "--verp-delimiters", "verp", default="+=", show_default=True, metavar="XY",
    help='The characters for "+" and "=" in such senders: two of "-=+".',
)
@click.argument("recipients", nargs=-1, required=True, metavar="RECIPIENT…")
@config_option
def submit(
    sender: str | None, with_verp: bool, verp: str, recipients: tuple[str, ...], config: Path | None
) -> None:
    """Hand a message from standard input to the running node.

    The command ends with 0 when the node has stored the message. Lines may end with LF or CRLF. The node adds Date,
    Message-ID and From if they are missing. If it refuses one recipient, it takes the message for nobody.
    """
    from postroad.mail.message import only_crlf
    from postroad.mail.verp import fault
    from postroad.operate.control import NotRunning
    from postroad.operate.submitting import SubmitRefused
    from postroad.operate.submitting import submit as hand_over
    from postroad.protocol.grammar import parse_mailbox

    if wrong := fault(verp):
        _end(EX_USAGE, f"--verp-delimiters: {wrong}")
    settings = settings_of(config)
    written = f"{who()}@{settings.hostname}" if sender is None else sender.removeprefix("<").removesuffix(">")
    for each in ((written,) if written else ()) + recipients:
        if parse_mailbox(each) is None:
            _end(EX_USAGE, f"{each!r} is not a mail address")
    size_max = settings.limits.size_max
    octets = sys.stdin.buffer.read(size_max + 1)
    if len(octets) > size_max:
        _end(EX_DATAERR, f"the message has more than {size_max} octets (limits.size_max)")
    content = octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    if content and not content.endswith(b"\r\n"):
        content += b"\r\n"
    if not only_crlf(content):
        _end(EX_DATAERR, "the message has a CR that is not a line end")
    try:
        told = hand_over(
            Path(settings.state_dir), written, recipients, content, user=who(), timeout_s=settings.limits.message_s,
            verp=verp if with_verp else "",
        )
    except NotRunning:
        _end(EX_TEMPFAIL, "The node is not running.")
    except PermissionError as error:
        _end(EX_NOPERM, f"you may not open the node's socket: {error.strerror}")
    except SubmitRefused as error:
        _end(_code_of(error.code, error.recipient), f"<{error.recipient}>: {error}" if error.recipient else str(error))
    click.echo(told)


def _code_of(code: int, recipient: str) -> int:
    if code < 500:
        return EX_TEMPFAIL
    if recipient:
        return EX_NOUSER
    return EX_DATAERR if code in (501, 552, 554) else EX_UNAVAILABLE


def _end(code: int, text: str) -> NoReturn:
    click.echo(text, err=True)
    sys.exit(code)
