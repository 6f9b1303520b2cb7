"""Which mail the node has written itself: `Peer.listener` of such a message, which no client has brought.

What always holds: all of it is in OWN, so that who treats own mail apart (`deliver.signing`) forgets no kind.
"""

from __future__ import annotations

from typing import Final

REPORT: Final = "report"  # a DSN to a sender
POSTMASTER: Final = "report-postmaster"  # mail to the postmaster, whose own failure is told to nobody
FEEDBACK: Final = "report-to-domain"  # a report to another domain (`report.feedback_mail`)
OWN: Final = frozenset((REPORT, POSTMASTER, FEEDBACK))
