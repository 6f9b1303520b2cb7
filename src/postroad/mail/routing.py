"""The face of routing: where the mail for one recipient of a message goes next, at once or later.

Everybody who needs a destination asks a `DestinationOf`. The answer depends on the message (sender, account, size,
listener) and on the recipient. Not here: how an answer is found (`route.table`), how the queue waits for one
(`queue.awaiting`).
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final, Protocol

from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.route import Destination

Found = Destination | Attempt  # an answer that is there
Answer = Found | Awaitable[Found]

NOT_KNOWN: Final = ""  # as a destination key: of recipients whose destination is still to be found


class DestinationOf(Protocol):
    """Where the mail for a recipient goes next.

    - **Who asks**: the queue, each time it takes a recipient up: when its message was accepted, after a restart, at
      each retry, and for what waits when the settings change. Also operators' requests, listings and imports, who want
      to know the destination's key only.
    - **How often**: once for each recipient of a message, in the order of the envelope. Each question stands alone:
      the next answer may be another one.
    - **What is asked with**: the envelope, or as much of it as is known (before the end of data it has no recipients,
      and the size that the client declared). The recipient need not be one of the envelope's.
    - **The answer at once**, if it can be had without waiting: a Destination; an Attempt that has failed, if there will
      never be one; one that has delivered, if its mail is to be thrown away; or one that is deferred (`not_now`): the
      recipient stays in the queue and is asked about again as for any deferral; or one that holds it (`held`). Two
      destinations with equal keys are equal.
    - **The answer later**: an Awaitable of such an answer. Nothing begins before it is awaited. Who asks awaits it
      once, on the loop, or gives it to `let_go`. It may be cancelled. The queue waits for a limited number at a time,
      and for each for a limited time; then the answer counts as `not_now`.
    - **Stored answers**: `Recipient.destination` is the answer that was given when the recipient was accepted. If it
      is set, the answer is made from it, and nothing is looked up.
    - **Errors**: nothing is raised by the call. What the Awaitable raises is a bug; the queue logs it and takes it as
      `not_now`.
    - It is called on the loop, in the path of every message, so it must not block and should answer at once if it can.
    """

    def __call__(self, envelope: Envelope, recipient: Recipient) -> Answer: ...


def not_now(text: str) -> Attempt:
    """The destination cannot be found now: the recipient waits and is tried again. `text` says why, for people."""
    return Attempt(Outcome.DEFERRED, Reach.RECIPIENT, "4.3.0", text, transport="")


HOLD: Final = "hold"  # the transport of such an answer, and the destination of what is held: until it is released


def held(text: str) -> Attempt:
    """The recipient's mail is to be held. It is asked about again when it was released (`Recipient.released`); the
    answer is then another one."""
    return Attempt(Outcome.DEFERRED, Reach.RECIPIENT, "4.3.2", text, transport=HOLD)


def is_held(answer: object) -> bool:
    return isinstance(answer, Attempt) and answer.transport == HOLD


def let_go(answer: Awaitable[Found]) -> None:
    """An answer that nobody waits for."""
    close = getattr(answer, "close", None) or getattr(answer, "cancel", None)
    if close is not None:
        close()


def key_of(answer: Answer) -> str:
    """The destination's key; `NOT_KNOWN` if there is none, or if it would have to be waited for."""
    if isinstance(answer, Destination):
        return answer.key
    if not isinstance(answer, Attempt):
        let_go(answer)
    return NOT_KNOWN
