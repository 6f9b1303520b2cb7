"""The program: it reads the command line and the message, hands the message over, and ends with a code of
sysexits.h."""

from __future__ import annotations

import posix
import sys

from postroad.sendmail import arguments, exits, message, places, request
from postroad.sendmail.arguments import Arguments
from postroad.sendmail.exits import End

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(folder: str, words: Sequence[str]) -> int:
    """Run the program with the words of its command line, its own name first. `folder`: the one that it shares with
    the node. The exit code."""
    program = words[0].rpartition("/")[2] if words else "sendmail"
    try:
        _run(folder, arguments.read(program, words[1:]))
    except End as end:
        if end.text and sys.stderr is not None:
            sys.stderr.write(f"{program}: {end.text}\n")
        return end.code
    except KeyboardInterrupt:
        return exits.TEMPFAIL
    return exits.OK


def _say(text: str) -> None:
    """To standard output, unless nobody reads it (any more): the code at the end is what counts."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:
        sys.stdout = None  # else Python tries once more at its end


def _run(folder: str, found: Arguments) -> None:
    if found.mode == arguments.SUBMIT:
        _submit(folder, found)
    elif found.mode == arguments.SMTP:
        _session(folder)
    elif found.mode == arguments.VERIFY:
        if not found.recipients:
            raise End(exits.USAGE, "-bv needs an address")
        _ask(folder, request.verify(found))
    else:
        _ask(folder, request.plain(found.mode))


def _submit(folder: str, found: Arguments) -> None:
    if not found.recipients and not found.extract:
        raise End(exits.USAGE, "name a recipient, or use -t to take recipients from the message")
    content = message.read(0, _size_max(folder), dots=found.dots)
    if not found.recipients and not message.names_recipients(content):
        raise End(exits.TEMPFAIL, "No recipient addresses found in message header")
    lines = request.submit(found, len(content))
    why = _hand_over(folder, lines, content, verbose=found.verbose)
    if why is None:
        return
    from postroad.sendmail import drop_folder

    try:
        drop_folder.drop(folder, lines, content)
    except drop_folder.Undropped as error:
        raise End(exits.TEMPFAIL, f"{why}, and {error}") from None
    if found.verbose:
        _say(f"{why}: the message waits in the drop folder\n")


def _hand_over(folder: str, lines: bytes, content: bytes, *, verbose: bool) -> str | None:
    """None if the node has the message, else why it does not take it now. Raises End if the node refuses it."""
    from postroad.sendmail.node_socket import Forbidden, NodeAway, NodeConnection

    try:
        connection = NodeConnection(folder)
        connection.send(lines)
        code, texts = connection.reply()
        if code == 354:
            connection.send(content)
            code, texts = connection.reply()
    except NodeAway as error:
        return str(error)
    except Forbidden as error:
        raise End(exits.NOPERM, str(error)) from None
    if code < 300:
        for text in texts if verbose else texts[:-1]:
            _say(f"{text}\n")
        return None
    if code < 500:
        return texts[-1]
    recipient = texts[0].startswith("<")
    raise End(exits.code_of(code, recipient), "\n".join(texts))


def _session(folder: str) -> None:
    from postroad.sendmail.node_socket import Forbidden, NodeAway, NodeConnection
    from postroad.sendmail.session import StandardSession

    try:
        connection = NodeConnection(folder)
        connection.send(request.plain(places.SMTP))
        StandardSession(connection).run()
    except (NodeAway, OSError) as error:
        raise End(exits.TEMPFAIL, str(error)) from None
    except Forbidden as error:
        raise End(exits.NOPERM, str(error)) from None


def _ask(folder: str, lines: bytes) -> None:
    from postroad.sendmail.node_socket import Forbidden, NodeAway, NodeConnection

    try:
        connection = NodeConnection(folder)
        connection.send(lines)
        code, texts = connection.reply()
    except NodeAway as error:
        raise End(exits.TEMPFAIL, str(error)) from None
    except Forbidden as error:
        raise End(exits.NOPERM, str(error)) from None
    if code < 300:
        _say("".join(f"{text}\n" for text in texts))
        return
    raise End(exits.code_of(code, texts[0].startswith("<")), "\n".join(texts))


def _size_max(folder: str) -> int:
    """How large a message may be: the node has written it down."""
    try:
        descriptor = posix.open(f"{folder}/{places.FACTS}", posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_CLOEXEC)
    except OSError:
        return places.SIZE_MAX
    try:
        octets = posix.read(descriptor, 4096)
    finally:
        posix.close(descriptor)
    for line in octets.split(b"\n"):
        word, _, value = line.partition(b" ")
        if word == b"size_max" and value.isdigit():
            return int(value)
    return places.SIZE_MAX
