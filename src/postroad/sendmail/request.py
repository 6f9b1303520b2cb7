"""The lines of a request, as `places` describes them."""

from __future__ import annotations

from postroad.sendmail import places
from postroad.sendmail.arguments import Arguments
from postroad.sendmail.exits import USAGE, End


def submit(arguments: Arguments, size: int) -> bytes:
    """The lines that hand over a message of this size. Raises End."""
    lines = [f"{places.SUBMIT} {places.VERSION}"]
    if arguments.sender is not None:
        lines.append(f"from {arguments.sender}")
    lines += [f"to {recipient}" for recipient in arguments.recipients]
    for word in ("name", "notify", "ret", "envid", "body", "verp"):
        value = getattr(arguments, word)
        if value:
            lines.append(f"{word} {value}")
    if arguments.extract:
        lines.append("extract yes")
    if arguments.mail_errors:
        lines.append("errors mail")
    lines.append(f"size {size}")
    return joined(lines)


def verify(arguments: Arguments) -> bytes:
    """The lines that ask what would become of addresses."""
    return joined([f"{places.VERIFY} {places.VERSION}", *(f"to {recipient}" for recipient in arguments.recipients)])


def plain(verb: str) -> bytes:
    """The lines of a request that is only a verb."""
    return joined([f"{verb} {places.VERSION}"])


def joined(lines: list[str]) -> bytes:
    """Lines with their ends, and the empty line. Raises End for a value that is no line."""
    for line in lines:
        if not line.isprintable() and any(char < " " or char == "\x7f" for char in line):
            raise End(USAGE, "an address or a name has a control character")
    octets = "\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")
    if len(octets) > places.REQUEST_MAX:
        raise End(USAGE, "there are too many recipients")
    return octets
