"""All contradictions of the settings. Each matter has a module of its own beside this one.

Pure: each check looks at one matter and yields its findings. Paths count elements as `Settings` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from postroad.config.contradictions import (
    accounts,
    certificates,
    dkim,
    domains,
    feedback,
    functions,
    listeners,
    many_domains,
    maps,
    next_hops,
    numbers,
    origin,
    outbound_tls,
    relaying,
    report_mailboxes,
    rewriting,
    senders,
    sending,
)
from postroad.config.finding import Finding
from postroad.config.settings import Settings

# In the order in which findings about the same line are shown.
_CHECKS: Final[tuple[Callable[[Settings], Iterator[Finding]], ...]] = (
    accounts.offered,
    functions.inspectors,
    functions.function,
    accounts.verifiers,
    accounts.certificate_names,
    certificates.ours,
    certificates.of_clients,
    listeners.same_place,
    domains.names,
    many_domains.find,
    many_domains.without_mailboxes,
    listeners.roles,
    relaying.open_relays,
    relaying.open_relay_domains,
    listeners.proxies,
    relaying.etrn,
    listeners.early_talkers,
    listeners.lmtp,
    domains.delivery,
    domains.placeholders,
    domains.users,
    domains.alias_targets,
    domains.lmtp_account,
    domains.recipients,
    domains.same_server,
    relaying.recipients,
    next_hops.find,
    outbound_tls.find,
    maps.find,
    rewriting.find,
    report_mailboxes.find,
    senders.find,
    sending.find,
    origin.find,
    feedback.find,
    dkim.find,
    numbers.ordered,
    numbers.pace,
    numbers.dns,
    numbers.group,
)


def find(settings: Settings) -> list[Finding]:
    """All contradictions."""
    return [finding for check in _CHECKS for finding in check(settings)]
