"""Finds what contradicts itself in the settings of reports to other domains."""

from __future__ import annotations

from collections.abc import Iterator

from postroad.config.finding import Finding
from postroad.config.settings import Settings


def find(settings: Settings) -> Iterator[Finding]:
    """Reports that are wanted, but cannot be sent."""
    section = settings.feedback
    if section.organization and not section.contact:
        yield Finding(
            (("feedback", "contact"), ("feedback", "organization")),
            "Without contact no report is sent: it names the mailbox for questions, and is their sender",
            "Set contact, or remove organization",
        )
    if section.contact and not section.organization:
        yield Finding(
            (("feedback", "organization"), ("feedback", "contact")),
            "Without organization no report is sent: each says who sends it",
            "Set organization, or remove contact",
        )
    if section.organization and section.contact and (section.dmarc or section.tls) and not settings.history.keep_days:
        yield Finding(
            (("history", "keep_days"), ("feedback", "organization")),
            "The reports on a day are made of its history when the day is over, so it must be kept for a day at least",
            "Set history.keep_days to 1 or more, better to 4: then the node can make up for days on which it was down",
        )
    if section.failures and not (section.organization or section.contact):
        yield Finding(
            (("feedback", "failures"), ("feedback", "organization")),
            "Failure reports are only sent if they can say who sends them",
            "Set organization and contact",
        )
