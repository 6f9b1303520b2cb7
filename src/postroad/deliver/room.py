"""Whether a Maildir has room for a message, before the message is there. Blocks: it is called on a thread.

What is said here is what delivery would say: the same quotas and the same file ``maildirsize`` count (`deliver.quota`).
How it fails: a mailbox that cannot be looked at, or is not there yet, has room.
"""

from __future__ import annotations

import contextlib

from postroad.deliver.folders import FolderOpener
from postroad.deliver.mailbox import folder, mailbox_name
from postroad.deliver.options import MaildirOptions
from postroad.deliver.quota import QuotaTable, exceeds, usage_with
from postroad.mail.address import Address
from postroad.mail.route import Destination, Quota, Transport
from postroad.world.files import Posix


def is_full(
    destination: Destination, address: Address, size: int, now_us: int, options: MaildirOptions, posix: Posix,
    quotas: QuotaTable,
) -> bool:
    """`size`: of the message, 0 if it is not known."""
    if destination.transport is not Transport.MAILDIR or destination.rules.user:
        return False
    rules = destination.rules
    quota = quotas.of(rules.quota_file, mailbox_name(address.local_part, options), rules.quota)
    box = folder(destination.path, address, destination.domain, options)
    if quota == Quota() or isinstance(box, str):
        return False
    try:
        with contextlib.ExitStack() as stack:
            root = FolderOpener(posix, make=False).open(box.base, box.names, stack)
            return exceeds(usage_with(posix, root, quota, max(1, size), now_us), quota)
    except OSError:
        return False
