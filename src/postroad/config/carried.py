"""Settings on their way to another process: plain values, as a TOML file would hold them, and back.

What always holds: the settings that come out equal those that went in; no code travels with them, so that they may
cross machines. How it fails: values that are no settings (the other process is of another version) give a text that
says so. Passwords travel, too: whoever carries the values must keep others from reading them.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from postroad.config.settings import Settings


def to_plain(settings: Settings) -> dict[str, Any]:
    """The settings as texts, numbers, lists and tables."""
    values: dict[str, Any] = settings.model_dump(mode="json", exclude_none=True)
    return values


def from_plain(values: dict[str, Any]) -> Settings | str:
    """The settings again, or why these values are none."""
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"])) or "the settings"
        return (
            f"the settings came from another version of Postroad ({key}: {first['msg']}); restart the node, "
            "so that all its processes are of one version"
        )
