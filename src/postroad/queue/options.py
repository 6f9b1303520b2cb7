"""The queue's settings; each limit of promise 5 that concerns the queue has its name here."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class QueueOptions(msgspec.Struct, frozen=True):
    """When mail is tried again, and how much is under way at a time."""

    concurrency: Annotated[
        int,
        Meta(
            ge=1,
            description="The most connections of the whole node to one destination.",
        ),
    ] = 20
    concurrency_start: Annotated[
        int,
        Meta(
            ge=1,
            description="The most connections to a remote destination at first. Success raises this number, up to "
            "`concurrency`; failure lowers it.",
        ),
    ] = 5
    connections_max: Annotated[
        int,
        Meta(
            ge=1,
            description="The most connections of one worker to all destinations together.",
        ),
    ] = 400
    connections_slow_max: Annotated[
        int,
        Meta(
            ge=0,
            description="The most further connections of one worker. Each connection that has made no progress for "
            "`slow_s` allows one more, so that slow hosts do not hold up others.",
        ),
    ] = 400
    slow_s: Annotated[
        float,
        Meta(
            ge=0.1,
            description="How long a connection must make no progress until it counts as slow.",
        ),
    ] = 2.0
    probes_max: Annotated[
        int,
        Meta(
            ge=1,
            description="The most connections of one worker that are opening at a time to destinations that failed "
            "before.",
        ),
    ] = 100
    probes_per_s: Annotated[
        float,
        Meta(
            ge=0.1,
            description="The most destinations whose retries one worker begins in a second. After an outage or a "
            "restart, overdue retries are spread over time in this way.",
        ),
    ] = 100.0
    gather_s: Annotated[
        float,
        Meta(
            ge=0,
            description="How long failed recipients of a message wait for the outcome of its other recipients, so "
            "that one report covers all.",
        ),
    ] = 10.0
    recipients_per_job_max: Annotated[
        int,
        Meta(
            ge=1,
            description="The most recipients of a message in one transaction.",
        ),
    ] = 100
    retry_first_s: Annotated[float, Meta(ge=1, description="The pause after the first attempt.")] = 300.0
    retry_factor: Annotated[
        float,
        Meta(
            ge=1,
            le=10,
            description="How many times longer each pause is than the pause before. The pause depends on the age of "
            "the message, not on the number of attempts: `queue retry` and ETRN do not lengthen it.",
        ),
    ] = 1.7
    retry_max_s: Annotated[float, Meta(ge=1, description="The longest pause between two attempts.")] = 14_400.0
    retry_jitter: Annotated[
        float,
        Meta(
            ge=0,
            le=0.9,
            description="How far a pause may be longer or shorter at random, as a fraction of the pause.",
        ),
    ] = 0.15
    lifetime_s: Annotated[
        float,
        Meta(
            ge=0,
            description="How long the node tries to reach a recipient. After that the recipient fails, and the node "
            "reports this to the sender.",
        ),
    ] = 432_000.0
    lifetime_dsn_s: Annotated[
        float,
        Meta(
            ge=0,
            description="The same for messages without a return address, such as reports.",
        ),
    ] = 432_000.0
    delay_notice_s: Annotated[
        float,
        Meta(
            ge=0,
            description="How long a message must be delayed until the node reports the delay to the sender. 0: it is "
            "not reported.",
        ),
    ] = 14_400.0
    backoff_first_s: Annotated[
        float,
        Meta(
            ge=0,
            description="How long the node leaves a destination alone if none of its hosts can be used. The pause "
            "doubles each time.",
        ),
    ] = 60.0
    backoff_max_s: Annotated[float, Meta(ge=0, description="The longest of these pauses.")] = 3_600.0
    ready_max: Annotated[
        int,
        Meta(
            ge=1,
            description="The most messages of one destination in memory. More wait on the disk.",
        ),
    ] = 2_000
    load_max: Annotated[
        int,
        Meta(
            ge=1,
            description="The most recipients that are read from the disk at a time for one destination.",
        ),
    ] = 200
    lanes_max: Annotated[int, Meta(ge=1, description="The most destinations that one worker serves at a time.")] = 2_000
    messages_max: Annotated[
        int,
        Meta(
            ge=1,
            description="The most messages that one worker has in memory. More wait on the disk.",
        ),
    ] = 50_000
    memory_max: Annotated[
        int,
        Meta(
            ge=0,
            description="The most content that one worker keeps in memory for delivery. Other content is read from "
            "the disk again.",
        ),
    ] = 67_108_864
    settle_retry_s: Annotated[
        float,
        Meta(
            ge=0.01,
            description="How long the node waits before it tries again to write an outcome that could not be written "
            "(the disk is full).",
        ),
    ] = 1.0
    unsettled_max: Annotated[
        int,
        Meta(
            ge=1,
            description="The most outcomes of one worker that may wait to be written. At this limit the worker "
            "delivers nothing more. So a crash leads to no more duplicates than these outcomes and the "
            "deliveries under way.",
        ),
    ] = 500
