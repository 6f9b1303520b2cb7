"""The files ``.forward`` of users as a map: ``local-part@table`` → the texts (`route.forward_includes.value_of`).

The porter answers it. In domains without a `user` only the user of the node has such a file; a thread of the worker
reads it. What always holds: each file is read by a process that is its user; the limits are those of `maps.waiting`; a
home that is slow or away keeps only the mail of its own users waiting. How it fails: no answer, so that mail waits; a
file that cannot be used counts as none, and the log says why.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec

from postroad.deliver.porter import PorterRequest, read_forward
from postroad.mail.extension import extension_of
from postroad.maps.face import Map
from postroad.maps.waiting import Away, WaitingOptions, WaitingSource
from postroad.route.forward_includes import gathered, value_of
from postroad.route.forwards import Forwards, TableOf
from postroad.route.outlets import OutletOptions
from postroad.route.recipients import fold
from postroad.world.forward_file import ForwardFile, read, read_included
from postroad.world.identity import UserAccount, own_account
from postroad.world.porter_link import Porter
from postroad.world.problem import Problem

_READ_S: Final = 10.0  # how long one file may take
_OPTIONS: Final = WaitingOptions(timeout_s=30.0, at_once_max=8, cache_s=5.0, cache_missing_s=5.0, last_good_s=0.0)
_TOLD_MAX: Final = 1_000  # faults that are remembered, so that each is told once


class OwnForwards(msgspec.Struct, frozen=True):
    """The file of the user of the node. `user`: None if he has none. `tables`: of the domains in which it counts;
    `includes`: whether it may include files."""

    user: UserAccount | None = None
    tables: frozenset[str] = frozenset()
    includes: bool = False
    delimiter: str = ""

    def read(self, local_part: str) -> ForwardFile:
        """For mail to this local-part. Blocks."""
        if self.user is None or fold(local_part, self.delimiter) != self.user.name:
            return ForwardFile()
        found = read(self.user, extension_of(local_part, self.delimiter))
        if found.text is None or not self.includes:
            return found
        return gathered(found, partial(read_included, user=self.user))


class ForwardDriver:
    """See the module. `tell`: hears of files that cannot be used."""

    folds = True

    def __init__(
        self, porter: Porter | None, tell: Callable[[str, str], None], own: OwnForwards = OwnForwards()  # noqa: B008
    ) -> None:
        self._porter = porter
        self._tell = tell
        self._own = own
        self._told: OrderedDict[str, None] = OrderedDict()

    async def fetch(self, key: str, part: bool) -> str | None:
        local_part, _, table = key.rpartition("@")
        try:
            async with asyncio.timeout(_READ_S):
                if table in self._own.tables:
                    found = await asyncio.get_running_loop().run_in_executor(None, self._own.read, local_part)
                else:
                    found = await self._asked(local_part, table)
        except TimeoutError:
            raise LookupError(f"the home of {local_part} gave no answer in {_READ_S:g} s") from None
        if found.not_now:
            raise LookupError(found.not_now)
        if found.fault:
            self._warn(found.fault)
        return None if found.text is None else value_of(found.text, found.included)

    async def _asked(self, local_part: str, table: str) -> ForwardFile:
        """What the porter says."""
        if self._porter is None:
            raise Away(".forward files need a node that was started as root")
        request = PorterRequest(table, local_part, table, None, "", 0, 0, False, b"", 0, reads=True)
        content = os.memfd_create("postroad", os.MFD_CLOEXEC)
        try:
            answer = await self._porter.ask(msgspec.msgpack.encode(request), content)
        finally:
            os.close(content)
        if isinstance(answer, Problem):
            raise Away(str(answer))
        return read_forward(answer)

    def _warn(self, fault: str) -> None:
        if fault in self._told:
            return
        self._told[fault] = None
        if len(self._told) > _TOLD_MAX:
            self._told.popitem(last=False)
        self._tell("warning", f"a .forward file is not used, the mail goes to the mailbox: {fault}")

    def close(self) -> None:
        """It holds nothing."""


def forwards(
    porter: Porter | None, table_of: TableOf, options: OutletOptions, delimiter: str, tell: Callable[[str, str], None],
    own: frozenset[str] = frozenset(),
) -> Forwards:
    """`own`: tables of the domains in which only the user of the node has such a file."""
    ours = OwnForwards(own_account(), own, "forwards" in options.includes, delimiter)
    source = WaitingSource(ForwardDriver(porter, tell, ours), _OPTIONS, ".forward", tell)
    map = Map(".forward", "forward", source, partial(tell, "error"))
    return Forwards(map, table_of, options, delimiter, tell, own)
