"""Settings that go to another process come out the same."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec

from postroad.config.carried import from_plain, to_plain
from postroad.config.document import example
from postroad.config.settings import Settings


def _settings(*, every: bool) -> Settings:
    """Those of the example; `every`: with each key that it only explains."""
    lines = example().split("\n")
    if every:
        lines = [line[1:] if line.startswith("#") and not line.startswith("# ") else line for line in lines]
    return Settings.model_validate(tomllib.loads("\n".join(lines)), context={"folder": Path("/etc/postroad")})


def _carried(settings: Settings) -> Settings | str:
    return from_plain(msgspec.msgpack.decode(msgspec.msgpack.encode(to_plain(settings))))


def test_all_settings_come_out_as_they_went_in() -> None:
    for every in (False, True):
        settings = _settings(every=every)
        assert _carried(settings) == settings


def test_a_password_travels() -> None:
    made = Settings.model_validate(
        {"hostname": "a.example", "state_dir": "/s",
         "next_hop": [{"domain": "*", "host": "b", "username": "u", "password": "s3cret"}]}
    )  # fmt: skip
    carried = _carried(made)
    assert isinstance(carried, Settings) and carried.next_hop[0].password == "s3cret"


def test_settings_of_another_version_are_told() -> None:
    values = to_plain(_settings(every=False))
    values["limits"]["of_tomorrow"] = 1
    assert from_plain(values) == (
        "the settings came from another version of Postroad (limits.of_tomorrow: Extra inputs are not permitted); "
        "restart the node, so that all its processes are of one version"
    )
    assert isinstance(from_plain({}), str)
