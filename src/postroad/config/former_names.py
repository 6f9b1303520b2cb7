"""Settings that had another name once: advice for configurations with the old name."""

from __future__ import annotations

from typing import Final

_NOW: Final[dict[tuple[str, ...], str]] = {
    ("store", "company_s"): "commit_wait_s",
    ("dns", "trust_ad"): "validating",
}


def advice(path: tuple[str | int, ...]) -> str:
    """What to do about the key at `path`; "" if it never was a setting."""
    name = _NOW.get(tuple(part for part in path if isinstance(part, str)))
    return f"This setting is called {name!r} now: change the name and keep the value" if name else ""


def named() -> tuple[tuple[tuple[str, ...], str], ...]:
    """Each former name with the present one, for tests."""
    return tuple(_NOW.items())
