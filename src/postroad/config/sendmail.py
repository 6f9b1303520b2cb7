"""The users of this machine, who hand over mail by calling `sendmail`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator

from postroad.config.field import Section, of
from postroad.config.values import (
    AddedFields,
    Domain,
    File,
    RemovedFields,
    ReplacedFields,
    Seconds,
    one_or_more,
)
from postroad.receive.options import LocalListing, LocalOptions, LocalSender


class SendmailSection(Section):
    """The users of this machine who call the program `sendmail` (docs/sendmail.md). Root and the user of the node have
    no limits, and may name any sender."""

    folder: File | None = of(LocalOptions.folder, default=None, example='"/var/spool/postroad"')
    domain: Domain | None = of(LocalOptions.domain, default=None, example='"example.org"')
    users: Annotated[tuple[str, ...], BeforeValidator(one_or_more)] = of(LocalOptions.users, example='["www-data"]')
    remove_fields: RemovedFields = of(LocalOptions.remove_fields, example='["User-Agent"]')
    replace_fields: ReplacedFields = of(
        LocalOptions.replace_fields, example='["/^User-Agent: (.*)/ X-Agent: $1"]'
    )
    add_fields: AddedFields = of(LocalOptions.add_fields, example='["X-Machine: web1"]')
    sender: LocalSender = of(LocalOptions.sender, word=True)
    mailq: LocalListing = of(LocalOptions.mailq, word=True)
    flush: bool = of(LocalOptions.flush)
    messages_max: int = of(LocalOptions.messages_max, unit="messages")
    window_s: Seconds = of(LocalOptions.window_s)
    at_once_max: int = of(LocalOptions.at_once_max, unit="messages")
