"""The face of a courier: what the queue calls, whatever carries the mail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from postroad.mail.attempt import Attempt
from postroad.mail.job import Job


class Courier(Protocol):
    """One kept connection to a destination, or a writer of local mail. Only the queue calls it:

    - one job at a time, and only while `usable`;
    - `close` once, at the end; nothing is called after it.
    """

    def carry(self, job: Job, done: Callable[[Job, tuple[Attempt, ...]], None]) -> None:
        """Carry a job. `done` is called exactly once, whatever happens, and never from within this call. It gets an
        Attempt for each recipient, in the order of the job."""

    @property
    def usable(self) -> bool:
        """Whether it can carry another job."""

    @property
    def elsewhere(self) -> bool:
        """Whether the destination has another host that has not been tried yet."""

    @property
    def doing(self) -> str:
        """What it is doing for its job now, in words for operators."""

    def close(self) -> None:
        """Say QUIT and end the connection; nobody waits for that."""
