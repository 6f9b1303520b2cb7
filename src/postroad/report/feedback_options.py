"""Settings of the reports that the node sends to other domains (docs/reports-out.md)."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from postroad.report.feedback import FeedbackKind, ReportingNode


class FeedbackOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is reported to whom. `hostname`: the node's name. `mailboxes`: report mailboxes of ours; mail to them is not
    reported on, `delimiters` begin an extension of their names. `keep_days`: how long it is known what was sent."""

    organization: Annotated[
        str,
        Meta(
            max_length=200,
            description="The name of your organization in reports to other domains. Without it and `contact` no "
            "report is sent.",
        ),
    ] = ""
    contact: Annotated[
        str,
        Meta(
            description="The mailbox for questions about these reports. It is also their sender, so its domain needs "
            "SPF or DKIM, and a DKIM key if TLS reports are to be accepted.",
        ),
    ] = ""
    more_contact: Annotated[
        str, Meta(max_length=500, description="More about whom to ask, such as a telephone number or a web page.")
    ] = ""
    dmarc: Annotated[
        bool, Meta(description="Whether DMARC aggregate reports are sent to domains whose record asks for them (rua=).")
    ] = True
    tls: Annotated[
        bool, Meta(description="Whether TLS reports are sent to domains that ask for them (a record at _smtp._tls).")
    ] = True
    failures: Annotated[
        bool,
        Meta(
            description="Whether DMARC failure reports are sent to domains whose record asks for them (ruf=). Each "
            "tells of one message that failed: its way and who signed it, never its body. Know what your privacy "
            "rules allow before you switch this on.",
        ),
    ] = False
    failures_per_hour: Annotated[
        int, Meta(ge=1, le=100_000, description="The most failure reports that one worker sends within an hour.")
    ] = 60
    failures_per_domain: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000,
            description="The most failure reports for one domain within an hour. Each report says how many messages "
            "were left out since the last one.",
        ),
    ] = 6
    except_domains: Annotated[
        tuple[str, ...], Meta(description="Domains that get no report, such as your own.")
    ] = ()
    spread_s: Annotated[
        float,
        Meta(
            ge=0,
            le=72_000,
            description="The reports on a day are sent within this time after the day's end (UTC), each at a moment "
            "of its own.",
        ),
    ] = 14_400.0
    per_day_max: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="The most reports that are sent on one day, each destination counted. The log says so if it "
            "is reached.",
        ),
    ] = 10_000
    size_max: Annotated[
        int,
        Meta(
            ge=10_000,
            le=50_000_000,
            description="The largest report, compressed. Of a larger one the rows with the fewest messages are left "
            "out.",
        ),
    ] = 5_000_000
    post_s: Annotated[
        float, Meta(ge=0.1, le=600, description="How long a server may take to accept a TLS report by HTTPS.")
    ] = 60.0
    post_ca_file: Annotated[
        str,
        Meta(
            description="The root certificates by which the servers for TLS reports must prove themselves, PEM. Unset: "
            "the system's."
        ),
    ] = ""
    post_private: Annotated[
        bool,
        Meta(
            description="Whether reports may be posted to servers with private addresses. Off, nobody outside can "
            "have the node send requests into your own network."
        ),
    ] = False
    hostname: str = "localhost"
    mailboxes: tuple[str, ...] = ()
    delimiters: str = ""
    keep_days: int = 30

    @property
    def kinds(self) -> tuple[FeedbackKind, ...]:
        """The daily reports that are sent."""
        if not self.organization or not self.contact:
            return ()
        wanted = ((FeedbackKind.DMARC, self.dmarc), (FeedbackKind.TLS, self.tls))
        return tuple(kind for kind, wants in wanted if wants)

    @property
    def tells_failures(self) -> bool:
        """Whether failure reports are sent."""
        return self.failures and bool(self.organization and self.contact)

    @property
    def reporter(self) -> ReportingNode:
        return ReportingNode(self.organization, self.contact, self.hostname, self.more_contact)
