"""A setting by its former name is an error that gives the present one."""

from __future__ import annotations

from postroad.config import former_names, schema
from postroad.config.settings import Settings


def test_each_former_name_is_free_and_each_present_one_is_there() -> None:
    known = {(*table.path, key.name) for table in schema.tables(Settings) for key in table.keys}
    for (*table, former), present in former_names.named():
        assert (*table, former) not in known
        assert (*table, present) in known


def test_other_names_have_no_advice() -> None:
    assert former_names.advice(("store", "compny_s")) == ""
    assert former_names.advice(("company_s",)) == ""
