"""What all couriers of a worker share: our name, options, clock, and how long each step of a session may take."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from typing import Final

import msgspec

from postroad.deliver.options import DeliverOptions
from postroad.deliver.signing import Signing
from postroad.protocol.client_events import Step
from postroad.protocol.replies import ReplyLimits
from postroad.world.clock import Clock

_LOOK_S: Final = 1.0  # a connection that is kept without work for a shorter time has its timer moved
_LOOK_LEAST_S: Final = 0.01


class CourierContext(msgspec.Struct, frozen=True):
    """What all couriers of a worker share. `name`: ours, for EHLO. `limits_s`: how long each step may take; `look_s`:
    between two looks at the deadline. None of them is shorter, but for the end and perhaps the wait for work.
    `signing`: who signs, None if nobody does."""

    name: str
    options: DeliverOptions
    clock: Clock
    loop: asyncio.AbstractEventLoop
    pool: Executor
    limits_s: dict[Step, float]
    look_s: float
    reply_limits: ReplyLimits
    signing: Signing | None = None


def courier_context(
    name: str, options: DeliverOptions, clock: Clock, loop: asyncio.AbstractEventLoop, pool: Executor,
    signing: Signing | None = None,
) -> CourierContext:
    """`pool` reads files; a few threads are enough."""
    limits_s = {
        Step.GREETING: options.greeting_s,
        Step.HELLO: options.hello_s,
        Step.HELO: options.hello_s,
        Step.STARTTLS: options.starttls_s,
        Step.HANDSHAKE: options.handshake_s + options.connect_s,  # the network's own limit comes first
        Step.AUTH: options.auth_s,
        Step.RESPONSE: options.auth_s,
        Step.IDLE: options.idle_s,
        Step.RSET: options.reset_s,
        Step.XFORWARD: options.mail_s,
        Step.XCLIENT: options.greeting_s,
        Step.MAIL: options.mail_s,
        Step.RCPT: options.rcpt_s,
        Step.DATA: options.data_initiation_s,
        Step.CONTENT: options.data_block_s,
        Step.END: options.data_termination_s,
        Step.DOT: options.data_termination_s,
        Step.QUIT: options.quit_s,
        Step.CLOSED: options.quit_s,
    }
    replies = ReplyLimits(options.reply_line_max, options.reply_lines_max, options.reply_size_max)
    own = (Step.IDLE, Step.QUIT, Step.CLOSED)
    others = min(options.transaction_s, *(limit_s for step, limit_s in limits_s.items() if step not in own))
    look_s = max(min(others, options.idle_s) if options.idle_s >= _LOOK_S else others, _LOOK_LEAST_S)
    return CourierContext(name, options, clock, loop, pool, limits_s, look_s, replies, signing)
