"""Brings keys into the form in which they are compared: without regard to case, and composed (NFC), as UTF-8. Pure."""

from __future__ import annotations

import unicodedata


def fold(key: str) -> str:
    return key.lower() if key.isascii() else unicodedata.normalize("NFC", key).lower()


def fold_octets(key: bytes) -> bytes:
    """Raises UnicodeDecodeError."""
    return key.lower() if key.isascii() else fold(key.decode()).encode()
