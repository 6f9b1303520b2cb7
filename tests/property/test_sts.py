"""MTA-STS with any record and any policy file, and the office with any order of questions, fetches and restarts."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from postroad.mail.tls_policy import StsMode, StsPolicy, TlsFailure
from postroad.node.frames import FetchSts, StsTold
from postroad.node.offices.sts import RETRY_S, StsOffice
from postroad.store.sts import NAME, StsStore
from postroad.trust.sts_fetch import StsFetched, StsOptions
from tests.fuzz import sts as fuzzed

LINES = st.sampled_from((
    "version: STSv1", "mode: enforce", "mode: testing", "mode: none", "mx: mx.a.example", "mx: *.a.example",
    "max_age: 86400", "max_age: 99999999999", "mx: 192.0.2.1", "x: y", "", "no pair", "v=STSv1; id=1", "v=STSv1; id=2",
))  # fmt: skip


@given(st.lists(LINES | st.text(max_size=20), max_size=12), st.sampled_from(("\n", "\r\n")), st.integers(0, 3))
def test_any_lines(lines: list[str], end: str, records: int) -> None:
    text = "\n".join(lines[:records]) + "\n\n" + end.join(lines[records:])
    fuzzed.check(bytes(4) + text.encode("utf-8", "surrogatepass"))


STEPS = st.lists(
    st.tuples(st.sampled_from(("ask", "ask", "fetch", "fail", "wait", "wait long", "restart", "die", "change", "look")),
              st.integers(0, 1), st.booleans()),
    max_size=60,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_a_policy_that_was_fetched_holds_until_it_ends(steps: list[tuple[str, int, bool]]) -> None:
    """Whatever happens: each question is answered once, at once or with the end of a fetch; a policy in force is in
    every answer; one fetch at a time; nothing is fetched again within five minutes of a failure with the same id."""
    with tempfile.TemporaryDirectory() as folder:
        world = _World(Path(folder))
        for name, worker, has_record in steps:
            world.step(name, worker, has_record)
        world.office.close()


class _World:
    def __init__(self, folder: Path) -> None:
        self.folder, self.now_us = folder, 1_800_000_000_000_000
        self.id = 1
        self.expires_us = 0  # of the policy that is in force
        self.failed: dict[str, int] = {}
        self.open()

    def open(self) -> None:
        self.waiting: list[tuple[int, str]] = []
        self.flight: tuple[int, FetchSts] | None = None
        self.office = StsOffice(
            lambda: StsOptions(), self.send, lambda: [0, 1], lambda: self.now_us, lambda level, text: None,
            random.Random(5), lambda: StsStore(self.folder / NAME),
        )  # fmt: skip

    def send(self, worker: int, frame: Any) -> None:
        if isinstance(frame, FetchSts):
            assert self.flight is None, "two fetches at a time"
            assert not frame.id or self.now_us >= self.failed.get(frame.id, 0), "asked again too soon"
            self.flight = worker, frame
        if isinstance(frame, StsTold):
            assert (worker, frame.id) in self.waiting
            self.waiting = [each for each in self.waiting if each != (worker, frame.id)]
            has = frame.answer.policy is not None
            assert has is (self.now_us < self.expires_us), (has, self.now_us, self.expires_us)
            assert frame.until_us > self.now_us

    def step(self, name: str, worker: int, has_record: bool) -> None:
        match name:
            case "ask":
                id = str(self.id) if has_record else ""
                self.waiting.append((worker, id))
                self.office.ask(worker, "a.example", id)
                assert self.flight is not None or not self.waiting
            case "fetch" | "fail" if self.flight is not None:
                number, frame = self.flight
                self.flight = None
                if name == "fetch":
                    policy = StsPolicy("a.example", frame.id or str(self.id), StsMode.ENFORCE, ("a.example",), 86_400)
                    found = StsFetched(policy)
                    self.expires_us = self.now_us + 86_400_000_000
                    self.failed.clear()
                else:
                    found = StsFetched(None, TlsFailure.STS_POLICY_FETCH_ERROR, "away")
                    self.failed[frame.id] = self.now_us + RETRY_S * 1_000_000
                self.office.fetched(number, frame.question, found)
                assert not self.waiting
            case "die":
                if self.flight is not None and self.flight[0] == worker:
                    self.flight = None
                self.waiting = [each for each in self.waiting if each[0] != worker]
                self.office.worker_died(worker)
                assert self.flight is not None or not self.waiting
            case "wait" | "wait long":
                if self.flight is None:
                    self.now_us += 20_000_000 if name == "wait" else 20_000_000_000
            case "restart":
                self.office.close()
                self.failed.clear()  # failures are not kept
                self.open()
            case "change":
                self.id += 1
            case "look":
                self.office.look()
