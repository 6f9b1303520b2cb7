"""What is said of a mailbox that has moved (RFC 5321 §3.4): by replies (`check.moved`) and reports (`route.relocated`).
Pure."""

from __future__ import annotations

from typing import Final

TEXT_MAX: Final = 300  # characters of the words of a map


def new_place(value: str) -> str:
    """The words of a map as any client and any report can carry them."""
    return value[:TEXT_MAX] if value.isascii() and value.isprintable() else "another place"


def has_moved(value: str) -> str:
    return f"User has moved to {new_place(value)}"
