"""Where waiting mail would go now, for the commands that show it: `operate.routes` with the configuration at hand."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from postroad.cli.options import loaded_settings, state_dir_of

if TYPE_CHECKING:
    from postroad.operate.requests import RouteQuestion
    from postroad.operate.routes import Routes
    from postroad.store.values import Loaded


def routes(config: Path | None, found: Iterable[Loaded]) -> Routes:
    """For the recipients of these messages that wait."""
    from postroad.operate.routes import questions

    return routes_of(config, questions(found))


def routes_of(config: Path | None, asked: Iterable[RouteQuestion]) -> Routes:
    """For these questions."""
    from postroad.operate import routes

    return routes.routes(state_dir_of(config), partial(loaded_settings, config), asked)
