"""The retry schedule: when a recipient is tried next, and when we give up. Pure.

RFC 5321 §4.5.4.1: the interval grows, the give-up time is at least 4 to 5 days. The pause grows with the age of the
message, not with the number of attempts: an additional attempt (`queue retry`, ETRN) does not delay the others. What
always holds: the next attempt never comes after the end of the lifetime, nor much after the time at which a delay must
be told, so both are on time. A sender may have set a shorter time (BY, RFC 2852) and a later beginning (RFC 4865): see
`mail.wishes`.
"""

from __future__ import annotations

import random

from postroad.mail import wishes
from postroad.mail.envelope import Envelope, Notify, Recipient
from postroad.queue.options import QueueOptions

_US = 1_000_000


def interval_s(options: QueueOptions, age_s: float, random: random.Random) -> float:
    """Seconds to wait after a failure of a message of this age. Without attempts out of turn, each pause is
    `retry_factor` times the one before, so the age is the sum of the pauses before: (pause - first) / (factor - 1)."""
    grown = options.retry_first_s + (options.retry_factor - 1.0) * max(0.0, age_s)
    return min(grown, options.retry_max_s) * (1.0 + options.retry_jitter * (2.0 * random.random() - 1.0))


def backoff_s(options: QueueOptions, failures: int, random: random.Random) -> float:
    """Seconds for which a destination is left alone after `failures` openings failed in a row (1 = the first)."""
    grown = options.backoff_first_s * 2.0 ** min(failures - 1, 32)
    return min(grown, options.backoff_max_s) * (1.0 + options.retry_jitter * (2.0 * random.random() - 1.0))


def expires_us(options: QueueOptions, envelope: Envelope) -> int:
    """When the lifetime of the message ends; with BY= in return mode, at the latest when that time is over."""
    lifetime_s = options.lifetime_s if envelope.reverse_path is not None else options.lifetime_dsn_s
    if not envelope.parameters:
        return envelope.accepted_us + int(lifetime_s * _US)
    end_us = wishes.begin_us(envelope) + int(lifetime_s * _US)
    deadline_us = wishes.deadline_us(envelope, wishes.ByMode.RETURN)
    return min(end_us, deadline_us) if deadline_us else end_us


def is_overdue(envelope: Envelope, now_us: int) -> bool:
    """Whether the message must not be delivered any more, because the sender's time for it is over (RFC 2852)."""
    return 0 < wishes.deadline_us(envelope, wishes.ByMode.RETURN) <= now_us


def delay_due_us(options: QueueOptions, envelope: Envelope) -> int:
    """When a delay is to be reported, 0 for never; with BY= in notify mode when that time is over, and not before."""
    if envelope.reverse_path is None:
        return 0
    begin_us = envelope.accepted_us
    if envelope.parameters:
        deadline_us = wishes.deadline_us(envelope, wishes.ByMode.NOTIFY)
        if deadline_us:
            return deadline_us
        begin_us = wishes.begin_us(envelope)
    return begin_us + int(options.delay_notice_s * _US) if options.delay_notice_s > 0 else 0


def wants_delay(recipient: Recipient) -> bool:
    """Whether a delay is reported. RFC 3461 §4.1: NOTIFY has DELAY, or there is no NOTIFY (§5.2.6 lets us choose: we
    report)."""
    return recipient.notify is Notify.UNSET or bool(recipient.notify & Notify.DELAY)


def next_due_us(
    options: QueueOptions, envelope: Envelope, delay_reported: bool, now_us: int, random: random.Random
) -> int:
    """When to try again after a failure at `now_us`."""
    age_s = (now_us - wishes.begin_us(envelope)) / _US
    due_us = now_us + int(interval_s(options, age_s, random) * _US)
    notice_us = delay_due_us(options, envelope)
    if not delay_reported and now_us < notice_us < due_us:
        # The next attempt is at the hour at which the sender must be told: one attempt more, and the news is fresh.
        due_us = notice_us + (0 if wishes.deliver_by(envelope) is not None else int(random.random() * 60 * _US))
    end_us = expires_us(options, envelope)
    return max(now_us + _US, min(due_us, end_us))
