"""How keys are compared: without regard to case, and composed (NFC), as octets of UTF-8 are kept in tables. Pure."""

from __future__ import annotations

import unicodedata


def fold(key: str) -> str:
    return key.lower() if key.isascii() else unicodedata.normalize("NFC", key).lower()


def fold_octets(key: bytes) -> bytes:
    """Raises UnicodeDecodeError."""
    return key.lower() if key.isascii() else fold(key.decode()).encode()
