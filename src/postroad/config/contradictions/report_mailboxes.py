"""What the table [report_mailboxes] says against the domains."""

from __future__ import annotations

from collections.abc import Iterator

from postroad.config.finding import Finding
from postroad.config.settings import Settings
from postroad.mail.address import canonical_domain
from postroad.route.domains import DomainTable


def find(settings: Settings) -> Iterator[Finding]:
    """Mailboxes to which no mail can come, and keys without a mailbox."""
    section = settings.report_mailboxes
    if not section.addresses:
        for key in sorted(section.model_fields_set - {"addresses"}):
            yield Finding(
                (("report_mailboxes", key), ("report_mailboxes", "addresses")), "This has no effect without addresses",
                f"Name the mailboxes of reports: addresses, or remove {key}",
            )  # fmt: skip
        return
    tables = (*settings.domain, *settings.relay.domain)
    if any(each.domain_maps for each in tables):
        return  # maps say which domains are ours
    names = [*(each.name for each in tables if each.name), *settings.relay.domains]
    ours = DomainTable((name, True) for name in names)
    for place, address in enumerate(section.addresses):
        domain = canonical_domain(address.rpartition("@")[2])
        if not ours.find(domain):
            yield Finding(
                (("report_mailboxes", "addresses", place), ("domain",)),
                f"No mail for {address} is taken: {domain} is no domain of this node",
                f'Add a [[domain]] with the name "{domain}", or use a mailbox of a domain that is there',
            )  # fmt: skip
