"""What the file ``.forward`` of a user says: targets as in the file of aliases, without names before them. Pure.

A line holds one or several targets with commas between them; ``#`` at its beginning makes it a comment. A bare name
is a mailbox at the domain of the recipient; the user's own name is the mailbox, and so is ``\\name``. A text
without targets says nothing. Programs, files and files that it includes are targets if the settings allow it (place
``forwards``; programs and files in an included file need the place ``includes``, too).

Who reads the file is not here: it belongs to the user, so the porter reads it as that user (`node.porter`), and again
before it uses a program or a file (`stands_in`). A worker reads it only if the user is that of the node. How it fails:
if anything in it is wrong, nothing of it counts, the log says why, and mail goes to the mailbox.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from postroad.mail.address import Address
from postroad.mail.extension import extension_of
from postroad.mail.route import Destination
from postroad.maps.asked import Asked
from postroad.maps.face import Map, NoAnswer
from postroad.route.alias_file import AliasTarget, OutletTarget
from postroad.route.forward_includes import IncludedTexts, texts_in
from postroad.route.outlets import OutletOptions, TargetSource
from postroad.route.recipients import fold

BY: Final = "forward:"  # before the name of the table, by which the porter knows such targets
_USER: Final = "{local_part}"
_PARSED_MAX: Final = 10_000  # texts whose targets are remembered
_NO_FILES: Final[Mapping[str, str]] = MappingProxyType({})

TableOf = Callable[[str], str]
"""The name of the table of a local domain whose users may have such files; "" for other domains."""


def forward_targets(
    text: str, source: TargetSource, options: OutletOptions, included: Mapping[str, str] = _NO_FILES
) -> tuple[AliasTarget, ...] | str:
    """The targets in a text, or what is wrong with it. `included`: texts of files that it includes, by path."""
    return IncludedTexts(options, included).read_all(text, source)


def source_of(table: str, user: str, *, is_own: bool = False) -> TargetSource:
    """`is_own`: the user is that of the node, so that no porter is needed."""
    return TargetSource("forwards", of=user) if is_own else TargetSource("forwards", BY + table, _USER, of=user)


def stands_in(
    text: str, source: TargetSource, options: OutletOptions, wanted: Destination,
    included: Mapping[str, str] = _NO_FILES,
) -> bool:
    """Whether the text names this very program or file."""
    found = forward_targets(text, source, options, included)
    if isinstance(found, str):
        return False
    named = (each.destination for each in found if isinstance(each, OutletTarget))
    return any(
        (each.transport, each.path, each.command) == (wanted.transport, wanted.path, wanted.command) for each in named
    )


class Forwards:
    """The files of all users of domains that have such files. `map`: the texts (`forward_includes.value_of`), by
    ``local-part@table``; `tell`: hears of files that cannot be used, once for each state of a file. `own`: tables of
    domains in which only the user of the node has such a file."""

    def __init__(
        self, map: Map, table_of: TableOf, options: OutletOptions, delimiter: str, tell: Callable[[str, str], None],
        own: frozenset[str] = frozenset(),
    ) -> None:
        self._map = map
        self._table_of = table_of
        self._options = options
        self._delimiter = delimiter
        self._tell = tell
        self._own = own
        self._parsed: OrderedDict[tuple[str, str, str], tuple[AliasTarget, ...]] = OrderedDict()

    def targets(self, address: Address, asked: Asked) -> tuple[AliasTarget, ...] | None:
        """Where the mail of a user goes instead of his mailbox; None if he has no such file."""
        table = self._table_of(address.domain)
        if not table:
            return None
        user = fold(address.local_part, self._delimiter)
        extension = extension_of(address.local_part, self._delimiter).lower()
        text = asked.look_up(self._map, f"{user}{extension}@{table}")
        if text is None or isinstance(text, NoAnswer):
            return None
        place = (user, table, text)
        found = self._parsed.get(place)
        if found is None:
            found = self._parsed[place] = self._read(user, table, text)
            if len(self._parsed) > _PARSED_MAX:
                self._parsed.popitem(last=False)
        return found or None

    def _read(self, user: str, table: str, value: str) -> tuple[AliasTarget, ...]:
        text, included = texts_in(value)
        source = source_of(table, user, is_own=table in self._own)
        found = forward_targets(text, source, self._options, dict(included))
        if isinstance(found, str):
            self._tell("warning", f"the .forward file of {user} is not used, its mail goes to the mailbox: {found}")
            return ()
        return found
