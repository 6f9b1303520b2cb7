"""Files of keys that sign addresses (`route.srs`, `route.batv`): one key in each line, the first one signs, all verify.

A line that is empty or begins with ``#`` is no key. What always holds: a file is read again when it changes (`load`);
one that cannot be read or has no key is not taken, and the keys from before stay. So a key is changed in two steps: a
new first line, and, when the last address that the old key has signed is out of date, the old line goes.

How it fails: with a Problem that says what is wrong with the file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from postroad.route.recipients import read_text
from postroad.world.files import Stamp, stamp
from postroad.world.problem import Problem

FILE_MAX: Final = 65_536  # octets of a file of keys
KEYS_MAX: Final = 100
KEY_MIN: Final = 4  # characters
_REMEDY: Final = "Write one long random text in a line: head -c 18 /dev/urandom | base64"

T = TypeVar("T")


def secrets_of(text: str, path: str) -> tuple[bytes, ...] | Problem:
    """The keys of a file, each a line as it stands there, as postsrsd reads its own."""
    found = _lines(text, path)
    return found if isinstance(found, Problem) else tuple(line.encode() for _, line in found)


def numbered_secrets_of(text: str, path: str) -> tuple[tuple[int, bytes], ...] | Problem:
    """The keys of a file whose lines are ``NUMBER KEY``, with numbers from 0 to 9."""
    found = _lines(text, path)
    if isinstance(found, Problem):
        return found
    keys: dict[int, bytes] = {}
    for number, line in found:
        name, _, key = line.partition(" ")
        if not (len(name) == 1 and name.isascii() and name.isdigit()):
            return Problem(f"{path}:{number}", "does not begin with the number of the key, 0 to 9", "Write: 0 KEY")
        if int(name) in keys:
            return Problem(f"{path}:{number}", f"the key {name} appears twice", "Give the new key another number")
        if len(key.strip()) < KEY_MIN:
            return Problem(f"{path}:{number}", f"the key {name} has fewer than {KEY_MIN} characters", _REMEDY)
        keys[int(name)] = key.strip().encode()
    return tuple(keys.items())


def _lines(text: str, path: str) -> list[tuple[int, str]] | Problem:
    found: list[tuple[int, str]] = []
    for number, line in enumerate(text.split("\n"), 1):
        key = line.rstrip("\r")
        if not key.strip() or key.startswith("#"):
            continue
        if len(key) < KEY_MIN:
            return Problem(f"{path}:{number}", f"the key has fewer than {KEY_MIN} characters", _REMEDY)
        found.append((number, key))
    if not found:
        return Problem(path, "has no key", _REMEDY)
    if len(found) > KEYS_MAX:
        return Problem(path, f"has more than {KEYS_MAX} keys", "Remove the old ones")
    return found


class KeyFile(Generic[T]):
    """The keys of one file as it stands now. `parse`: reads its text."""

    def __init__(self, path: str, parse: Callable[[str, str], tuple[T, ...] | Problem]) -> None:
        self.path = path
        self.keys: tuple[T, ...] = ()
        self._parse = parse
        self._seen: Stamp | None = None

    def load(self) -> tuple[Problem, ...]:
        """Read the file if it has changed. What is wrong with it, once; the keys from before stay then."""
        now = stamp(self.path)
        if now == self._seen:
            return ()
        self._seen = now
        text = read_text(self.path, FILE_MAX)
        found = text if isinstance(text, Problem) else self._parse(text, self.path)
        if isinstance(found, Problem):
            return (found,)
        self.keys = found
        return ()
