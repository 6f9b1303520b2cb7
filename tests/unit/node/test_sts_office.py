"""The office of MTA-STS policies: one fetch at a time, failures, what is kept over a restart, renewal, bounds."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import msgspec
import pytest

from postroad.mail.tls_policy import NO_STS, StsAnswer, StsMode, StsPolicy, TlsFailure
from postroad.node.frames import FetchSts, StsChanged, StsTold, ToWorker
from postroad.node.offices.sts import (
    DAY_S,
    LOOK_S,
    REFETCH_S,
    RETRY_S,
    UNUSED_S,
    WORKER_S,
    StsOffice,
)
from postroad.store.sts import AGE_MIN_S, DAMAGED, NAME, StsEntry, StsStore, kept
from postroad.trust.sts_fetch import StsFetched, StsOptions

D = "a.example"
FAILED = StsFetched(None, TlsFailure.STS_POLICY_FETCH_ERROR, "it is away")


def policy(id: str = "1", domain: str = D, mode: StsMode = StsMode.ENFORCE, age_s: int = 7 * DAY_S) -> StsPolicy:
    return StsPolicy(domain, id, mode, () if mode is StsMode.NONE else (f"mx.{domain}",), age_s, ("version: STSv1",))


class Node:
    """An office with two workers, and what they hear."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now_us = 1_800_000_000_000_000
        self.options = StsOptions()
        self.said: list[tuple[str, str]] = []
        self.up = [0, 1]
        self.open()

    def open(self) -> None:
        self.heard: list[tuple[int, ToWorker]] = []
        self.office = StsOffice(
            lambda: self.options, lambda number, frame: self.heard.append((number, frame)), lambda: self.up,
            lambda: self.now_us, lambda level, text: self.said.append((level, text)), random.Random(1), self.store,
        )  # fmt: skip

    def store(self) -> StsStore:
        return StsStore(self.folder / NAME, lambda text: self.said.append(("error", text)))

    def restart(self) -> None:
        self.office.close()
        self.open()

    def wait(self, s: float) -> None:
        self.now_us += int(s * 1_000_000)

    def look(self, s: float = LOOK_S + 1) -> None:
        self.wait(s)
        self.office.look()

    def take(self, kind: type) -> list[tuple[int, ToWorker]]:
        found = [each for each in self.heard if isinstance(each[1], kind)]
        self.heard = [each for each in self.heard if not isinstance(each[1], kind)]
        return found

    def fetches(self) -> list[tuple[int, FetchSts]]:
        return [(number, frame) for number, frame in self.take(FetchSts) if isinstance(frame, FetchSts)]

    def told(self) -> list[tuple[int, StsTold]]:
        return [(number, frame) for number, frame in self.take(StsTold) if isinstance(frame, StsTold)]

    def ask(self, id: str, domain: str = D, worker: int = 0) -> StsTold | None:
        """The answer, if there is one at once."""
        self.office.ask(worker, domain, id)
        told = self.told()
        assert all(number == worker for number, _ in told)
        return told[-1][1] if told else None

    def know(self, known: StsPolicy) -> StsTold:
        """A worker asks, and fetches this."""
        assert self.ask(known.id, known.domain) is None
        return self.answer(StsFetched(known))

    def answer(self, found: StsFetched) -> StsTold:
        ((worker, frame),) = self.fetches()
        self.office.fetched(worker, frame.question, found)
        return self.told()[-1][1]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_a_policy_is_fetched_once_by_who_asks_first(node: Node) -> None:
    for worker in (1, 0, 1):
        node.office.ask(worker, D, "1")
    ((worker, fetch),) = node.fetches()
    assert (worker, fetch.domain, fetch.id) == (1, D, "1")
    node.office.fetched(1, fetch.question, StsFetched(policy()))
    told = node.told()
    assert sorted(number for number, _ in told) == [0, 1]
    for _, each in told:
        assert each.answer.policy == policy() and each.answer.failure is TlsFailure.NO_FAILURE
        assert each.answer.source == "https://mta-sts.a.example/.well-known/mta-sts.txt, fetched 2027-01-15 08:00 UTC"
        assert each.until_us == node.now_us + DAY_S * 1_000_000
    assert {number for number, _ in node.take(StsChanged)} == {0, 1}
    again = node.ask("1")
    assert again is not None and again.answer.policy == policy() and not node.fetches()


def test_without_a_record_nothing_is_fetched(node: Node) -> None:
    told = node.ask("")
    assert told is not None and told.answer == NO_STS and told.expires_us == 0 and not node.fetches()


def test_if_the_record_is_gone_the_policy_holds(node: Node) -> None:
    node.know(policy())
    node.wait(6 * DAY_S)
    told = node.ask("")
    assert told is not None and told.answer.policy == policy() and told.answer.failure is TlsFailure.NO_FAILURE
    node.wait(DAY_S)
    told = node.ask("")
    assert told is not None and told.answer == NO_STS


def test_a_new_id_is_fetched_and_all_workers_hear_of_it(node: Node) -> None:
    node.know(policy())
    node.take(StsChanged)
    node.wait(REFETCH_S)
    told = node.know(policy("2", mode=StsMode.TESTING))
    assert told.answer.policy == policy("2", mode=StsMode.TESTING)
    assert node.take(StsChanged) == [(0, StsChanged(D)), (1, StsChanged(D))]


def test_while_the_new_policy_cannot_be_fetched_the_old_one_holds(node: Node) -> None:
    node.know(policy())
    node.wait(REFETCH_S)
    assert node.ask("2") is None
    told = node.answer(FAILED)
    assert told.answer.policy == policy()
    assert (told.answer.failure, told.answer.text) == (TlsFailure.STS_POLICY_FETCH_ERROR, "it is away")
    assert told.until_us <= node.now_us + 2 * RETRY_S * 1_000_000
    told = node.ask("2")
    assert told is not None and told.answer.policy == policy() and not node.fetches()
    assert node.said[-1][0] == "warning" and "could not be renewed (1 time in a row): it is away" in node.said[-1][1]
    assert "stays in force for 6 d 23 h" in node.said[-1][1]


def test_ids_that_flicker_cause_few_fetches(node: Node) -> None:
    node.know(policy())
    for _ in range(50):
        node.wait(REFETCH_S / 60)
        for id in ("2", "1", "3"):
            told = node.ask(id)
            assert told is not None and told.answer.policy == policy()
            assert told.until_us <= node.now_us + REFETCH_S * 1_000_000 or id == "1"
    assert not node.fetches()


def test_after_a_failure_a_domain_is_left_alone(node: Node) -> None:
    assert node.ask("1") is None
    told = node.answer(FAILED)
    assert told.answer == StsAnswer(None, TlsFailure.STS_POLICY_FETCH_ERROR, "it is away")
    waited = []
    for _ in range(8):
        start_us = node.now_us
        while (told := node.ask("1")) is not None:
            assert told.answer.text == "it is away" and told.until_us > node.now_us
            node.now_us = told.until_us
        node.answer(FAILED)
        waited.append((node.now_us - start_us) / 1_000_000)
    assert waited[0] >= RETRY_S and waited == sorted(waited) and waited[-1] <= 8 * 3_600
    assert node.ask("2") is None  # another id is asked for at once
    assert node.answer(StsFetched(policy("2"))).answer == StsAnswer(policy("2"), source=_source(node))
    assert [level for level, _ in node.said] == ["info"] * len(node.said)
    assert "announces an MTA-STS policy that cannot be had, so none holds: it is away" in node.said[0][1]


def _source(node: Node) -> str:
    told = node.ask("")
    assert told is not None
    return told.answer.source


def test_a_failure_says_nothing_of_a_domain_that_announces_nothing_any_more(node: Node) -> None:
    assert node.ask("1") is None
    node.answer(FAILED)
    told = node.ask("")
    assert told is not None and told.answer == NO_STS


def test_a_worker_that_dies_is_replaced(node: Node) -> None:
    node.office.ask(0, D, "1")
    node.office.ask(1, D, "1")
    ((_, first),) = node.fetches()
    node.office.worker_died(0)
    ((worker, second),) = node.fetches()
    assert worker == 1 and second.question != first.question
    node.office.fetched(0, first.question, FAILED)  # from the grave
    node.office.fetched(0, second.question, FAILED)
    assert not node.told()
    node.office.fetched(1, second.question, StsFetched(policy()))
    ((number, told),) = node.told()
    assert number == 1 and told.answer.policy == policy()


def test_a_worker_that_dies_while_nobody_waits(node: Node) -> None:
    node.office.ask(0, D, "1")
    node.fetches()
    node.office.worker_died(0)
    assert not node.fetches()
    assert node.ask("1", worker=1) is None
    assert node.answer(StsFetched(policy())).answer.policy == policy()


def test_a_worker_that_says_nothing_has_failed(node: Node) -> None:
    assert node.ask("1") is None
    node.look(node.options.time_s + WORKER_S + 1)
    ((_, told),) = node.told()
    assert told.answer.failure is TlsFailure.STS_POLICY_FETCH_ERROR and "did not answer" in told.answer.text


def test_policies_outlive_a_restart(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.know(policy())
    node.know(policy("7", "b.example", StsMode.TESTING, DAY_S))
    node.restart()
    told = node.ask("1")
    assert told is not None and told.answer.policy == policy() and not node.fetches()
    node.wait(DAY_S)
    node.restart()
    told = node.ask("", "b.example")
    assert told is not None and told.answer == NO_STS
    node.office.close()
    entry = kept(node.folder / NAME, D)
    assert entry is not None and not isinstance(entry, str) and entry.policy == policy()
    monkeypatch.chdir(node.folder)
    assert kept(Path(NAME), D) == entry
    assert kept(node.folder / NAME, "c.example") is None
    assert kept(node.folder / "none", D) is None


@pytest.mark.parametrize("octets", [b"", b"no database at all, but long enough to be looked at" * 100])
def test_a_damaged_store_is_moved_aside(node: Node, octets: bytes) -> None:
    node.know(policy())
    node.office.close()
    (node.folder / NAME).write_bytes(octets)
    node.said.clear()
    node.restart()
    assert node.ask("1") is None  # it is fetched again before mail goes
    node.answer(StsFetched(policy()))
    if octets:
        assert [level for level, _ in node.said] == ["error", "info"]
        assert "is damaged, and the MTA-STS policies that it held are lost" in node.said[0][1]
        assert (node.folder / (NAME + DAMAGED)).read_bytes() == octets
    node.restart()
    told = node.ask("1")
    assert told is not None and told.answer.policy == policy()


@pytest.mark.parametrize("entry", ["'[['", "CAST(x'5bff' AS TEXT)", "x'00'"])
def test_an_entry_that_cannot_be_read_is_left_out_alone(node: Node, entry: str) -> None:
    node.know(policy())
    node.know(policy("1", "b.example"))
    node.office.close()
    with sqlite3.connect(node.folder / NAME) as connection:
        connection.execute(f"UPDATE sts SET entry = {entry} WHERE domain = 'b.example'")
    connection.close()
    node.restart()
    told = node.ask("1")
    assert told is not None and told.answer.policy == policy()
    assert node.said[-1] == (
        "error", f"{node.folder / NAME}: the MTA-STS policy of 'b.example' cannot be read, and is left out"
    )
    assert node.ask("1", "b.example") is None


def test_a_store_that_cannot_be_written_stops_nothing(node: Node) -> None:
    (node.folder / NAME).mkdir()
    told = node.know(policy())
    assert told.answer.policy == policy() and "cannot be kept" in node.said[0][1]
    assert len([level for level, _ in node.said if level == "error"]) == 1


def test_a_policy_is_renewed_within_a_day_whatever_its_record_says(node: Node) -> None:
    node.know(policy())
    times = []
    for _ in range(10):
        start_us = node.now_us
        while not (found := node.fetches()):
            node.look()
        ((worker, frame),) = found
        assert (frame.domain, frame.id) == (D, "")
        times.append((node.now_us - start_us) / 1_000_000)
        node.office.fetched(worker, frame.question, StsFetched(policy("")))  # its record was not to be had
        node.ask("1")
        node.take(StsTold)
    assert min(times) >= DAY_S / 2 and max(times) <= DAY_S + 60 and len(set(times)) > 5
    told = node.ask("1")
    assert told is not None and told.answer.policy == policy()
    assert len(node.said) == 1  # nothing has changed


def test_a_renewal_that_fails_is_told_and_tried_again(node: Node) -> None:
    node.know(policy())
    for count in range(1, 4):
        while not (found := node.fetches()):
            node.look()
        ((worker, frame),) = found
        node.office.fetched(worker, frame.question, FAILED)
        told = node.ask("1")
        assert told is not None and told.answer.policy == policy()
        assert told.answer.failure is TlsFailure.STS_POLICY_FETCH_ERROR
        times = "1 time" if count == 1 else f"{count} times"
        assert node.said[-1][0] == "warning" and f"({times} in a row)" in node.said[-1][1]
    node.look(8 * DAY_S)
    assert node.said[-1] == ("info", "the MTA-STS policy of a.example has expired, and is not in force any more")
    told = node.ask("")
    assert told is not None and told.answer == NO_STS


def test_mode_none_is_kept_and_not_renewed(node: Node) -> None:
    told = node.know(policy(mode=StsMode.NONE))
    assert told.answer.policy is not None and told.answer.policy.mode is StsMode.NONE
    node.wait(REFETCH_S)
    assert node.ask("2") is None
    told = node.answer(FAILED)
    assert told.answer.policy == policy(mode=StsMode.NONE) and told.answer.failure is TlsFailure.NO_FAILURE
    assert all(level == "info" for level, _ in node.said)
    node.look(6 * DAY_S)
    assert not node.fetches()


def test_what_is_not_used_is_not_renewed(node: Node) -> None:
    node.know(policy(age_s=365 * DAY_S))
    node.wait(UNUSED_S + DAY_S)
    node.look()
    assert not node.fetches()
    node.ask("1")
    node.look()
    assert len(node.fetches()) == 1


def test_nothing_is_renewed_if_mta_sts_is_off(node: Node) -> None:
    node.know(policy())
    node.options = StsOptions(is_on=False)
    node.look(DAY_S)
    assert not node.fetches()


def test_few_renewals_at_a_time(node: Node) -> None:
    for number in range(10):
        node.know(policy("1", f"{number}.example"))
    node.look(DAY_S)
    assert len(node.fetches()) == 4
    node.look()
    assert not node.fetches()


def test_no_more_entries_than_allowed_and_the_least_used_goes_first(node: Node) -> None:
    node.options = StsOptions(entries_max=3)
    for name in "abc":
        node.know(policy("1", f"{name}.example"))
    node.ask("1", "a.example")
    node.know(policy("1", "d.example"))
    node.restart()
    known = [name for name in "abcd" if node.ask("1", f"{name}.example") is not None]
    assert known == ["a", "c", "d"]


def test_no_more_octets_than_allowed(node: Node) -> None:
    node.options = StsOptions(size_max=65_536)
    large = msgspec.structs.replace(policy(), lines=("x" * 1_000,) * 30)
    for name in "abc":
        node.know(msgspec.structs.replace(large, domain=f"{name}.example"))
    assert node.ask("1", "a.example") is None
    assert node.ask("1", "b.example") is not None and node.ask("1", "c.example") is not None


def test_a_policy_without_a_lifetime_holds_for_a_moment(node: Node) -> None:
    told = node.know(policy(age_s=0))
    assert told.answer.policy == policy(age_s=0) and told.expires_us == node.now_us + AGE_MIN_S * 1_000_000
    assert node.ask("1") is not None and not node.fetches()
    node.wait(AGE_MIN_S)
    assert node.ask("1") is None


def test_a_clock_that_was_set_back(node: Node) -> None:
    node.know(policy())
    node.office.look()
    node.wait(-30 * DAY_S)
    told = node.ask("1")
    assert told is not None and told.answer.policy == policy()
    node.restart()
    told = node.ask("1")
    assert told is not None and told.expires_us == node.now_us + 7 * DAY_S * 1_000_000


def test_what_expired_while_the_node_was_down_is_on_the_disk_no_more(node: Node) -> None:
    store = node.store()
    for domain, fetched_us in ((D, node.now_us - 8 * DAY_S * 1_000_000), ("b.example", node.now_us)):
        store.put(StsEntry(policy(domain=domain), fetched_us, node.now_us, node.now_us))
    store.close()
    node.restart()
    node.office.ask(0, D, "")
    assert node.heard[-1] == (0, StsTold(D, "", NO_STS, node.now_us + 3_600_000_000, 0))
    assert [each.policy.domain for each in node.store().entries()] == ["b.example"]
