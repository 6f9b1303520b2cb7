"""What the sender may be told of one recipient: the material of a delivery status notification (DSN).

The queue knows these facts and hands them over; `report.dsn` decides whether the sender wants to know, and prints
them. No octet of a DSN is made here.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

import msgspec

from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Notify, Recipient
from postroad.mail.event import Event, Expanded


class DsnAction(enum.Enum):
    """RFC 3464 §2.3.3 action-value."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    EXPANDED = "expanded"


class RecipientReport(msgspec.Struct, frozen=True):
    """One recipient, what became of it, and by which attempt.

    `attempt`: the last one; if there was none (expired before the first, failed by an operator, expanded) one that
    is made for the report, with outcome, status and text and no `started_us`. `expired`: it failed because the time
    for attempts is over, `attempt` then says what stood in the way. `until_us`: for DELAYED, when we shall give up
    (RFC 3464 §2.3.9), else 0. `into_count`: for EXPANDED, how many recipients the alias became. `traced`: it is told
    whatever NOTIFY says of success, because the time of delivery is traced (RFC 2852).
    """

    recipient: Recipient
    action: DsnAction
    attempt: Attempt
    expired: bool = False
    until_us: int = 0
    into_count: int = 0
    traced: bool = False


def of_expansion(given: Iterable[Recipient], events: Iterable[Event]) -> list[RecipientReport]:
    """The "expanded" reports for those whose aliases became several mailboxes (RFC 3461 §5.2.7.3), and the "delivered"
    ones for lists with an owner (§5.2.7.1). `events`: those of the expansion."""
    by_name = {str(recipient.given or recipient.address): recipient for recipient in given}
    reached = Attempt(Outcome.DELIVERED, Reach.RECIPIENT, "2.0.0", "the alias was expanded", transport="")
    taken = Attempt(Outcome.DELIVERED, Reach.RECIPIENT, "2.0.0", "it was passed to the list", transport="")
    return [
        RecipientReport(by_name[event.recipient], DsnAction.DELIVERED, taken)
        if event.listed
        else RecipientReport(by_name[event.recipient], DsnAction.EXPANDED, reached, into_count=len(event.into))
        for event in events
        if isinstance(event, Expanded) and (len(event.into) > 1 or event.listed) and event.recipient in by_name
    ]  # no copy's


def action_of(outcome: Outcome) -> DsnAction:
    """The action that an attempt's outcome is reported as."""
    return _ACTIONS[outcome]


_ACTIONS = {
    Outcome.DELIVERED: DsnAction.DELIVERED,
    Outcome.RELAYED: DsnAction.RELAYED,
    Outcome.DEFERRED: DsnAction.DELAYED,
    Outcome.FAILED: DsnAction.FAILED,
}


def wants(notify: Notify, action: DsnAction, *, dsn_passed: bool = False) -> bool:
    """Whether the sender of a recipient with this NOTIFY is to be told (RFC 3461 §4.1, §5.2.2, §5.2.3, §5.2.5, §5.2.6).

    The null reverse-path is the caller's to see: nobody is there to be told. `dsn_passed`: the next MTA has taken the
    wish to hear of success with the message, so telling is its duty (§5.2.1).
    """
    if action is DsnAction.FAILED:
        return notify is Notify.UNSET or (Notify.FAILURE in notify and Notify.NEVER not in notify)
    if action is DsnAction.DELAYED:
        return notify is Notify.UNSET or (Notify.DELAY in notify and Notify.NEVER not in notify)
    return bool(notify) and Notify.SUCCESS in notify and Notify.NEVER not in notify and not dsn_passed
