"""The public suite of tests for RFC 7208, all of it.

It is not part of the project. POSTROAD_SPF_SUITE names the folder that has rfc7208-tests.yml (else it is
../shared/vectors/spf). If it is not there, the tests are skipped; with CI set there are none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from postroad.mail.address import Address
from postroad.trust.asking import DnsQuestions
from postroad.trust.spf import SpfClient, check_mail_from
from tests.unit.trust.zones import ZoneResolver

yaml = pytest.importorskip("yaml")

SUITE = Path(os.environ.get("POSTROAD_SPF_SUITE") or Path(__file__).parents[3].parent / "shared" / "vectors" / "spf")
FILE = SUITE / "rfc7208-tests.yml"
__test__ = FILE.is_file() or not os.environ.get("CI")  # nothing may be skipped there, and it cannot have them
CASES = 203


def zones(zonedata: dict[str, list[Any]]) -> dict[str, dict[str, list[str]]]:
    """As ZoneResolver has them. Records of the type SPF stand for TXT records, unless the name has TXT records or says
    that it has none; TIMEOUT is for all types that the name has no records of."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, records in zonedata.items():
        here = found.setdefault(name.lower(), {})
        texts = any("TXT" in record for record in records if isinstance(record, dict))
        for record in records:
            if record == "TIMEOUT":
                for type in ("TXT", "A", "AAAA", "MX", "PTR", "CNAME"):
                    here.setdefault(type, ["ERROR"])
                continue
            ((type, value),) = record.items()
            if type == "SPF" and not texts:
                type = "TXT"
            if value != "NONE":
                here.setdefault(type, []).append(_written(value))
    return found


def _written(value: Any) -> str:
    if isinstance(value, list):
        separator = " " if value and isinstance(value[0], int) else ""  # MX; the strings of a text have nothing between
        return separator.join(map(str, value))
    return str(value)


def cases() -> Iterator[Any]:
    if not FILE.is_file():
        yield pytest.param("", {}, {}, marks=pytest.mark.skip(reason=f"{FILE} is not there"))
        return
    for scenario in yaml.safe_load_all(FILE.read_text()):
        for name, case in scenario["tests"].items():
            yield pytest.param(scenario["description"], case, scenario["zonedata"], id=name)


@pytest.mark.parametrize(("scenario", "case", "zonedata"), list(cases()))
async def test_case(scenario: str, case: dict[str, Any], zonedata: dict[str, list[Any]]) -> None:
    local_part, _, domain = case["mailfrom"].rpartition("@")
    sender = Address(local_part, domain) if case["mailfrom"] else None
    questions = DnsQuestions(ZoneResolver(zones(zonedata)))
    client = SpfClient(case["host"], case["helo"], "mx.example.net")
    result = await check_mail_from(client, sender, questions, with_steps=True)
    wanted = case["result"] if isinstance(case["result"], list) else [case["result"]]
    assert result.result in wanted, (result.told, result.steps)
    if "explanation" in case:
        assert result.explanation == case["explanation"].replace("DEFAULT", ""), result.steps


def test_all_of_it() -> None:
    if FILE.is_file():
        assert len(list(cases())) == CASES
