"""Where the configuration in force comes from, and the result of the last reload."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from postroad.operate.requests import Configuration


class LoadedConfiguration:
    """`path`: None if no file is known (tests). `now_us`: wall time."""

    def __init__(self, path: Path | None, now_us: Callable[[], int]) -> None:
        self.path = path
        self._now_us = now_us
        self._digest = self._reading = self._digest_now()
        self._loaded_us = now_us()
        self._refused_us = 0
        self._problems: list[str] = []

    def reading(self) -> None:
        """The file is about to be read: what it holds from here on may be newer than what is read."""
        self._reading = self._digest_now()

    def taken(self) -> None:
        """What was read is in force."""
        self._digest, self._loaded_us = self._reading, self._now_us()
        self._refused_us, self._problems = 0, []

    def refused(self, problems: list[str]) -> None:
        self._refused_us, self._problems = self._now_us(), problems

    def summary(self) -> Configuration:
        """For operators."""
        return Configuration(
            file="" if self.path is None else str(self.path.absolute()),
            loaded_us=self._loaded_us,
            changed=self._digest_now() != self._digest,
            refused_us=self._refused_us,
            problems=tuple(self._problems),
        )

    def _digest_now(self) -> str:
        """Of the file; "" if it cannot be read."""
        try:
            return "" if self.path is None else hashlib.sha256(self.path.read_bytes()).hexdigest()
        except OSError:
            return ""
