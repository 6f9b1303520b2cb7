"""The keys that sign mail."""

from __future__ import annotations

from postroad.config.field import Section, of
from postroad.config.values import File, Seconds
from postroad.trust.key_store import KeyOptions
from postroad.trust.rotation import RotationOptions


class DkimSection(Section):
    """The keys with which the node signs mail (DKIM)."""

    folder: File | None = of(KeyOptions.folder, default=None, example='"/var/lib/postroad/dkim"')
    rotate_days: int = of(RotationOptions.rotate_days, unit="days")
    seen_for_s: Seconds = of(RotationOptions.seen_for_s)
