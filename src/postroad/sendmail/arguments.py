"""The command line of `sendmail`, `mailq` and `newaliases`.

Options are read as Postfix reads them: unknown letters, and options that mean nothing here, are ignored. An option that
changes what happens to the mail is obeyed or refused, never ignored.
"""

from __future__ import annotations

from postroad.sendmail.exits import USAGE, End

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

SUBMIT: Final = "submit"
SMTP: Final = "smtp"
LIST: Final = "list"
FLUSH: Final = "flush"
VERIFY: Final = "verify"
ALIASES: Final = "aliases"

_MODES: Final = {"m": SUBMIT, "s": SMTP, "p": LIST, "v": VERIFY, "i": ALIASES}
_WITH_VALUE: Final = frozenset("ABCFLNORVXbefhopr")  # letters whose option has a value, in the same word or the next
_MAYBE_VALUE: Final = frozenset("dq")  # a value in the same word, or none
_BODIES: Final = {"7BIT": "7BIT", "8BITMIME": "8BITMIME"}
_NAMES: Final = {"mailq": LIST, "newaliases": ALIASES}


class Arguments:
    """What the caller wants. `sender`: None if it names none, "" for the null sender. `name`: the full name for a
    missing From. `extract`: recipients are (also) in the header section. `dots`: a line with only a dot is text.
    `mail_errors`: a refused recipient is told by mail, not by the exit code. `verp`: the delimiters of a sender of its
    own for each recipient, "" for none."""

    __slots__ = (
        "body", "dots", "envid", "extract", "mail_errors", "mode", "name", "notify", "recipients", "ret", "sender",
        "verbose", "verp",
    )  # fmt: skip

    def __init__(self) -> None:
        self.mode = SUBMIT
        self.sender: str | None = None
        self.name = self.notify = self.ret = self.envid = self.body = self.verp = ""
        self.extract = self.dots = self.mail_errors = self.verbose = False
        self.recipients: list[str] = []


def read(program: str, words: Sequence[str]) -> Arguments:
    """The arguments in the words of a command line. Raises End."""
    found = Arguments()
    found.mode = _NAMES.get(program.rpartition("/")[2], SUBMIT)
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word == "--":
            found.recipients += words[at:]
            break
        if len(word) < 2 or word[0] != "-":  # as with Postfix: no options behind the first recipient
            found.recipients += words[at - 1 :]
            break
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in _MAYBE_VALUE:
                _take(found, letter, letters)
                break
            if letter in _WITH_VALUE:
                if not letters:
                    if at == len(words):
                        raise End(USAGE, f"option -{letter} needs a value")
                    letters = words[at]
                    at += 1
                _take(found, letter, letters)
                break
            _take(found, letter, "")
    return found


def _take(found: Arguments, letter: str, value: str) -> None:
    if letter == "b":
        _mode(found, value)
    elif letter in "fr":
        found.sender = _path(value)
    elif letter == "F":
        found.name = value
    elif letter == "t":
        found.extract = True
    elif letter == "i":
        found.dots = True
    elif letter == "I":
        found.mode = ALIASES
    elif letter == "o":
        _long(found, value)
    elif letter == "O":
        _named(found, value)
    elif letter == "e":
        found.mail_errors = value[:1] in ("m", "e", "w")
    elif letter == "v":
        found.verbose = True
    elif letter == "q":
        _queue(found, value)
    elif letter in "BNRVX":
        _dsn(found, letter, value)


def _mode(found: Arguments, value: str) -> None:
    mode = _MODES.get(value[:1])
    if mode is None and value[:1] in "dDal":
        raise End(USAGE, f"-b{value}: the node is not started by sendmail: `postroad serve` starts it")
    if mode is None:
        raise End(USAGE, f"-b{value}: there is no such mode")
    found.mode = mode


def _long(found: Arguments, value: str) -> None:
    """-o with the letter of an option of old, such as -oi and -oem."""
    letter, rest = value[:1], value[1:]
    if letter == "i":
        found.dots = rest[:1].lower() not in ("f", "n", "0")
    elif letter == "e":
        found.mail_errors = rest[:1] in ("m", "e", "w")
    elif letter == "v":
        found.verbose = True


def _named(found: Arguments, value: str) -> None:
    """-O Name=value: the few that programs use."""
    name, _, rest = value.partition("=")
    name = name.strip().lower()
    if name == "ignoredots":
        found.dots = rest.strip()[:1].lower() not in ("f", "n", "0")
    elif name == "errormode":
        found.mail_errors = rest.strip()[:1].lower() in ("m", "e", "w")


def _queue(found: Arguments, value: str) -> None:
    if not value or value[0] == "f":
        found.mode = FLUSH
    elif not value[0].isdigit():  # a number is an interval, which the node has of its own
        raise End(USAGE, f"-q{value}: name mail with `postroad queue retry`")


def _dsn(found: Arguments, letter: str, value: str) -> None:
    """Options of RFC 3461 and RFC 6152."""
    upper = value.upper()
    if letter == "B":
        if upper not in _BODIES:
            raise End(USAGE, f"-B{value}: the body is 7BIT or 8BITMIME")
        found.body = upper
    elif letter == "N":
        words = upper.split(",")
        if words != ["NEVER"] and not set(words) <= {"SUCCESS", "FAILURE", "DELAY"}:
            raise End(USAGE, f"-N {value}: write never, or some of success, failure and delay with commas")
        found.notify = upper
    elif letter == "R":
        if upper not in ("FULL", "HDRS"):
            raise End(USAGE, f"-R {value}: write full or hdrs")
        found.ret = upper
    elif letter == "V":
        found.envid = value
    elif value[:1] == "V":  # other values of -X name a log file, which is not written
        delimiters = value[1:]
        if delimiters and (len(delimiters) != 2 or not set(delimiters) <= set("-=+")):
            raise End(USAGE, f"-X{value}: the delimiters are two characters, each one of -=+")
        found.verp = delimiters or "+="


def _path(value: str) -> str:
    value = value.strip()
    return value[1:-1] if value.startswith("<") and value.endswith(">") else value
