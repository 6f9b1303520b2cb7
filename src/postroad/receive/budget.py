"""Limits the memory for content on its way in, over all sessions of a worker.

Content up to `UNCOUNTED` octets of each session is not counted: small messages cost nothing here, and sessions have a
limit of their own. What always holds: beyond that, all sessions together hold at most `most` octets and one piece. When
this limit is reached, new messages are refused for now (452 4.3.1), and those under way go into files; a session whose
content cannot go into a file yet, because its header section has not ended, is ended. The memory counts as free again
when the message is handed over, dropped, or in a file.
"""

from __future__ import annotations

from typing import Final

UNCOUNTED: Final = 16_384
DEFAULT_MAX: Final = 268_435_456
NO_MEMORY: Final = "no memory left for content (limits.content_memory_max)"


class Budget:
    """`held`: octets counted now."""

    __slots__ = ("held", "most")

    def __init__(self, most: int = DEFAULT_MAX) -> None:
        self.most = most
        self.held = 0

    def take(self, most: int) -> None:
        """Settings; what is held stays counted."""
        self.most = most

    @property
    def spent(self) -> bool:
        return self.held > self.most
