"""Who gets a report of our own."""

from __future__ import annotations

from pathlib import Path

import pytest

from postroad.config.load import parse
from postroad.mail.address import Address
from postroad.mail.envelope import Recipient
from postroad.mail.expansion import Expansion
from postroad.node.wiring import report_way
from postroad.node.wiring.tables import Tables, build

SETTINGS = """
hostname = "mx.home.test"
state_dir = "state"
postmaster = "{postmaster}"
aliases = "{folder}/aliases"
[[domain]]
name = "home.test"
recipients = ["ada", "bob"]
path = "{folder}/{{domain}}/{{local_part}}"
"""


def tables(folder: Path, postmaster: str) -> Tables:
    (folder / "aliases").write_text("sales: ada\nchief: bob\n")
    text = SETTINGS.format(folder=folder, postmaster=postmaster)
    settings = parse(text, folder / "postroad.toml", files=False)
    assert not isinstance(settings, list), settings
    found = build(settings)
    assert not isinstance(found, str), found
    return found


def led(found: Expansion | None) -> tuple[list[str], list[tuple[str, ...]]]:
    assert found is not None
    return [str(each.address) for each in found.recipients], [
        (event.recipient, *event.into) for event in found.events if hasattr(event, "into")
    ]


@pytest.mark.parametrize(
    ("to", "postmaster", "goes", "event"),
    [
        ("ada@home.test", "bob@home.test", "ada@home.test", ()),
        ("ada+x@home.test", "bob@home.test", "ada+x@home.test", ()),
        ("sales@home.test", "bob@home.test", "ada@home.test", ("sales@home.test", "ada@home.test")),
        ("ghost@home.test", "bob@home.test", "bob@home.test", ("ghost@home.test", "bob@home.test")),
        ("ghost+x@home.test", "chief@home.test", "bob@home.test", ("ghost+x@home.test", "bob@home.test")),
        ("ghost@home.test", "eve@far.test", "eve@far.test", ("ghost@home.test", "eve@far.test")),
        ("ghost@far.test", "bob@home.test", "ghost@far.test", ()),
        ("ghost@home.test", "", "ghost@home.test", ()),
        ("ghost@home.test", "nobody@home.test", "ghost@home.test", ()),
    ],
)
def test_a_report_to_nobody_goes_to_the_postmaster(
    tmp_path: Path, to: str, postmaster: str, goes: str, event: tuple[str, ...]
) -> None:
    found = report_way.expand(tables(tmp_path, postmaster), 1, 0, (Recipient(Address(*to.split("@"))),))
    assert led(found) == ([goes], [event] if event else [])


def test_reports_name_whom_they_were_for(tmp_path: Path) -> None:
    found = report_way.expand(tables(tmp_path, "bob@home.test"), 1, 0, (Recipient(Address("ghost", "home.test")),))
    assert found is not None and str(found.recipients[0].given) == "ghost@home.test"
