"""The files ``.forward`` of users as a map that the porter answers: ``local-part@table`` → the text.

What always holds: each file is read by a process that has become its user; the limits are those of `maps.waiting`; a
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
from postroad.maps.face import Map
from postroad.maps.waiting import Away, WaitingOptions, WaitingSource
from postroad.route.forwards import Forwards, TableOf
from postroad.route.outlets import OutletOptions
from postroad.world.porter_link import Porter
from postroad.world.problem import Problem

_READ_S: Final = 10.0  # how long one file may take
_OPTIONS: Final = WaitingOptions(timeout_s=30.0, at_once_max=8, cache_s=5.0, cache_missing_s=5.0, last_good_s=0.0)
_TOLD_MAX: Final = 1_000  # faults that are remembered, so that each is told once


class ForwardDriver:
    """See the module. `tell`: hears of files that cannot be used."""

    folds = True

    def __init__(self, porter: Porter | None, tell: Callable[[str, str], None]) -> None:
        self._porter = porter
        self._tell = tell
        self._told: OrderedDict[str, None] = OrderedDict()

    async def fetch(self, key: str, part: bool) -> str | None:
        if self._porter is None:
            raise Away(".forward files need a node that was started as root")
        local_part, _, table = key.rpartition("@")
        request = PorterRequest(table, local_part, table, None, "", 0, 0, False, b"", 0, reads=True)
        content = os.memfd_create("postroad", os.MFD_CLOEXEC)
        try:
            async with asyncio.timeout(_READ_S):
                answer = await self._porter.ask(msgspec.msgpack.encode(request), content)
        except TimeoutError:
            raise LookupError(f"the home of {local_part} gave no answer in {_READ_S:g} s") from None
        finally:
            os.close(content)
        if isinstance(answer, Problem):
            raise Away(str(answer))
        found = read_forward(answer)
        if found.not_now:
            raise LookupError(found.not_now)
        if found.fault:
            self._warn(found.fault)
        return found.text

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
    porter: Porter | None, table_of: TableOf, options: OutletOptions, delimiter: str, tell: Callable[[str, str], None]
) -> Forwards:
    source = WaitingSource(ForwardDriver(porter, tell), _OPTIONS, ".forward", tell)
    return Forwards(Map(".forward", "forward", source, partial(tell, "error")), table_of, options, delimiter, tell)
