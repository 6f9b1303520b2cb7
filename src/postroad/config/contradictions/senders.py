"""What the tables [srs] and [batv] say against each other and against the domains."""

from __future__ import annotations

from collections.abc import Iterator

from postroad.config.finding import Finding
from postroad.config.locate import Path
from postroad.config.settings import Settings
from postroad.route.batv import Batv

_KEYS = "Name the file of its keys: keys_file"


def find(settings: Settings) -> Iterator[Finding]:
    """Signing without keys, and keys that nothing uses."""
    srs, batv = settings.srs, settings.batv
    if srs.domain is not None and srs.keys_file is None:
        yield Finding((("srs", "domain"), ("srs", "keys_file")), "SRS needs keys", _KEYS)
    if srs.domain is None and srs.keys_file is not None:
        about = ("srs", "keys_file"), ("srs", "domain")
        yield Finding(about, "[srs] has no domain", 'Add a line: domain = "example.org"')
    if srs.domain is not None and srs.hash_length < srs.hash_length_min:
        yield Finding(
            (("srs", "hash_length"), ("srs", "hash_length_min")),
            "New addresses would have a shorter hash than hash_length_min accepts",
            "Make hash_length at least as large as hash_length_min",
        )
    signing = [index for index, each in enumerate(settings.domain) if each.batv is not Batv.OFF]
    if signing and batv.keys_file is None:
        where: Path = ("domain", signing[0], "batv")
        yield Finding((where, ("batv", "keys_file")), "BATV needs keys", "Name their file: keys_file under [batv]")
    if batv.keys_file is not None and not signing:
        yield Finding(
            (("batv", "keys_file"), ("domain",)), "No [[domain]] uses [batv]", 'Write batv = "sign" into a [[domain]]'
        )
