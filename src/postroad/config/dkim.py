"""The keys that sign mail."""

from __future__ import annotations

from postroad.config.field import Section, of
from postroad.config.values import File
from postroad.trust.key_store import KeyOptions


class DkimSection(Section):
    """The keys with which the node signs mail (DKIM)."""

    folder: File | None = of(KeyOptions.folder, default=None, example='"/var/lib/postroad/dkim"')
