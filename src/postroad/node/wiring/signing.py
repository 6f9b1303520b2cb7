"""The keys by which a worker signs mail, of one edition of the settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from postroad.config import options
from postroad.deliver.signing_keys import SigningKeys, read_tables, table_stamps

if TYPE_CHECKING:
    from postroad.config.settings import Settings


def signing_keys(settings: Settings, tell: Callable[[str, str], None]) -> SigningKeys | str | None:
    """None if nothing is signed; or what is wrong with OpenDKIM's tables. A key that cannot be read is no reason to
    refuse the settings: `tell` hears of it, and the other domains go on to sign. The keys of the store come later
    (`deliver.signing.Signing.take_stored`)."""
    wanted = options.dkim_out_options(settings)
    if not wanted.sign:
        return None
    stamps = table_stamps(wanted)
    tables = read_tables(wanted)
    if isinstance(tables, tuple):
        return "; ".join(map(str, tables))
    return SigningKeys(wanted, tables, tell, stamps)
