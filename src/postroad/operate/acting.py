"""Carries out an operator's request: by the running node if there is one, else on the spool itself.

How it fails: `CannotAct`, whose text says why; then nothing was done. If something was done only for some recipients,
the results say so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from postroad.operate import control
from postroad.operate.operator import OperatorRequest, OperatorResult

if TYPE_CHECKING:
    from postroad.config.settings import Settings


class CannotAct(Exception):
    """The node refused, or the spool cannot be opened; the text says why."""


def act(request: OperatorRequest, state_dir: Path, settings: Callable[[], Settings]) -> list[OperatorResult]:
    """A result for each recipient that is meant. `settings`: asked for only if no node runs. Raises CannotAct."""
    try:
        return control.operate(state_dir, request)
    except control.NotRunning:
        pass
    except control.NodeRefused as error:
        raise CannotAct(str(error)) from error
    # This imports all of `config`. A command beside a running node must not wait for it.
    from postroad.operate import offline
    from postroad.operate.view import CannotRead

    loaded = settings()
    try:
        return offline.operate(loaded, request)
    except (CannotRead, offline.CannotOpen) as error:
        raise CannotAct(str(error)) from error


def without_effect(
    request: OperatorRequest, selectors: Sequence[str], act: Callable[[OperatorRequest], list[OperatorResult]]
) -> list[str]:
    """The selectors that match nothing; `selectors` are those of the request, as they were written. Queue ids are left
    out, because the results name each of them."""
    asked = replace(request, dry_run=True, rows_max=1)
    return [
        written
        for written, selection in zip(selectors, request.selections, strict=True)
        if not selection.ids and not act(replace(asked, selections=(selection,)))
    ]
