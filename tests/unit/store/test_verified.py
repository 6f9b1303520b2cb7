"""Answers of next hops on the disk: shared, bounded, and begun anew if the file is broken."""

from __future__ import annotations

from pathlib import Path

from postroad.store.verified import VerifiedEntry, VerifiedStore


def test_what_one_has_put_another_gets(tmp_path: Path) -> None:
    one, other = (VerifiedStore(tmp_path / "verified.db", 1000) for _ in range(2))
    entry = VerifiedEntry("ada@behind.test", True, 5, "250 ok", "mx.behind.test")
    one.put(entry)
    assert other.get("ada@behind.test") == entry and other.get("bob@behind.test") is None
    one.put(VerifiedEntry("ada@behind.test", False, 6))
    other.put(VerifiedEntry("bob@elsewhere.test", True, 7))
    assert [each.found for each in other.entries()] == [False, True]
    assert [each.mailbox for each in one.entries("behind.test")] == ["ada@behind.test"]
    assert one.forget(["@behind.test", "nobody@x.test"]) == 1 and other.get("ada@behind.test") is None
    assert other.forget(["bob@elsewhere.test"]) == 1 and one.forget_all() == 0
    one.close()
    other.close()


def test_the_oldest_go_first(tmp_path: Path) -> None:
    store = VerifiedStore(tmp_path / "verified.db", 100)
    for number in range(500):
        store.put(VerifiedEntry(f"user{number}@behind.test", True, number))
    kept = [each.at_us for each in store.entries()]
    assert 100 <= len(kept) <= 110 and min(kept) >= 390
    store.close()


def test_a_broken_file_is_begun_anew(tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "verified.db").write_bytes(b"this is no database, and longer than a header of one is" * 100)
    store = VerifiedStore(tmp_path / "verified.db", 100, told.append)
    store.put(VerifiedEntry("ada@behind.test", True, 1))
    assert store.get("ada@behind.test") is not None and len(told) == 1
    store.close()


def test_a_folder_that_is_not_there_is_told_and_harms_nobody(tmp_path: Path) -> None:
    told: list[str] = []
    store = VerifiedStore(tmp_path / "none" / "verified.db", 100, told.append)
    store.put(VerifiedEntry("ada@behind.test", True, 1))
    assert store.get("ada@behind.test") is None and len(told) == 1
    store.close()
