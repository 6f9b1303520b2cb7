"""What the keys of [rewrite] say against each other: those that have no effect without another one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from postroad.config.finding import Finding
from postroad.config.settings import Settings

_NEEDS: Final = {
    "canonical_classes": ("canonical_maps",),
    "sender_canonical_classes": ("sender_canonical_maps",),
    "recipient_canonical_classes": ("recipient_canonical_maps",),
    "propagate_extensions": ("canonical_maps", "sender_canonical_maps", "recipient_canonical_maps"),
    "masquerade_classes": ("masquerade_domains",),
    "masquerade_exceptions": ("masquerade_domains",),
    "header_clients": (
        "canonical_maps", "sender_canonical_maps", "recipient_canonical_maps", "masquerade_domains",
    ),
    "relocated_reply": ("relocated_maps",),
}  # fmt: skip


def find(settings: Settings) -> Iterator[Finding]:
    """Keys without the one that they are about."""
    rewrite = settings.rewrite
    for key, others in _NEEDS.items():
        if key in rewrite.model_fields_set and not any(getattr(rewrite, other) for other in others):
            names = " or ".join(others)
            yield Finding(
                (("rewrite", key), ("rewrite", others[0])), f"This has no effect without {names}",
                f"Add {others[0]}, or remove {key}",
            )  # fmt: skip
