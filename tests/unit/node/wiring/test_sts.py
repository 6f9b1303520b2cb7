"""MTA-STS in workers, with a real office behind them: DNS, HTTPS and the office joined by frames."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from postroad.mail.tls_policy import NO_STS, StsAnswer, StsMode, TlsFailure
from postroad.node.frames import (
    AskSts,
    FetchSts,
    Frame,
    StsChanged,
    StsFetchDone,
    StsTold,
    ToWorker,
    encode,
    read_from_worker,
    read_to_worker,
)
from postroad.node.offices.sts import REFETCH_S, RETRY_S, StsOffice
from postroad.node.wiring.sts import WorkerSts
from postroad.store.sts import NAME, StsStore
from postroad.trust.sts_fetch import StsOptions
from postroad.world.http import Fetch, HttpRequest, HttpResponse
from postroad.world.http_link import Unproved
from postroad.world.problem import Problem
from tests.unit.trust.zones import ZoneResolver

D = "a.example"
ENFORCE = b"version: STSv1\nmode: enforce\nmx: mx.a.example\nmax_age: 604800\n"


class World:
    """Two workers and the office of a node. `answers`: what HTTPS answers."""

    def __init__(self, folder: Path) -> None:
        self.now_us = 1_800_000_000_000_000
        self.options = StsOptions()
        self.zones: dict[str, Any] = {"mta-sts.a.example": {"A": ["192.0.2.1"]}}
        self.record("1")
        self.body: Any = ENFORCE
        self.status, self.media_type, self.encoding = 200, "text/plain", ""
        self.requests: list[HttpRequest] = []
        self.said: list[tuple[str, str]] = []
        self.fetched_by: list[int] = []
        self.loop = asyncio.get_running_loop()
        self.office = StsOffice(
            lambda: self.options, self._to_worker, lambda: [0, 1], lambda: self.now_us,
            lambda level, text: self.said.append((level, text)), random.Random(1), lambda: StsStore(folder / NAME),
        )  # fmt: skip
        self.workers = [
            WorkerSts(partial(self._to_office, number), lambda: self.now_us, self.loop, self._https)
            for number in (0, 1)
        ]
        self.take()

    def take(self) -> None:
        self.resolver = ZoneResolver(self.zones)
        for worker in self.workers:
            worker.take(self.options, self.resolver)

    def record(self, id: str) -> None:
        self.zones["_mta-sts.a.example"] = {"TXT": [f"v=STSv1; id={id}"]} if id else {}

    def _to_worker(self, number: int, frame: ToWorker) -> None:
        heard = read_to_worker(encode(frame))
        assert isinstance(heard, StsTold | StsChanged | FetchSts)
        if isinstance(heard, FetchSts):
            self.fetched_by.append(number)
        self.loop.call_soon(self.workers[number].hear, heard)

    def _to_office(self, number: int, frame: Frame) -> None:
        match read_from_worker(encode(frame)):
            case AskSts(domain, id):
                self.loop.call_soon(self.office.ask, number, domain, id)
            case StsFetchDone(question, found):
                self.loop.call_soon(self.office.fetched, number, question, found)

    def _https(self, executor: Executor, ca_file: str) -> Fetch:
        if ca_file:
            raise FileNotFoundError(2, "No such file or directory", ca_file)

        async def fetch(request: HttpRequest) -> HttpResponse | Problem:
            self.requests.append(request)
            await asyncio.sleep(0)
            if isinstance(self.body, Exception):
                raise self.body
            if isinstance(self.body, Problem):
                return self.body
            return HttpResponse(self.status, self.body, self.media_type, self.encoding)

        return fetch

    async def ask(self, worker: int = 0) -> StsAnswer:
        self.take()
        return await self.workers[worker](D)


@pytest.fixture
async def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_the_first_question_fetches_and_all_know(world: World) -> None:
    world.take()
    answers = await asyncio.gather(*(world.workers[number](D) for number in (0, 1, 0, 1, 0)))
    assert len(set(map(str, answers))) == 1 and len(world.requests) == len(world.fetched_by) == 1
    policy = answers[0].policy
    assert policy is not None and policy.mode is StsMode.ENFORCE and policy.id == "1" and policy.names("mx.a.example")
    (request,) = world.requests
    assert request.url == "https://mta-sts.a.example/.well-known/mta-sts.txt" and request.method == "GET"
    assert request.addresses == ("192.0.2.1",) and request.timeout_s == world.options.time_s


async def test_a_domain_without_a_record_costs_one_query(world: World) -> None:
    world.record("")
    assert await world.ask() == NO_STS
    assert world.resolver.asked == ["TXT _mta-sts.a.example"] and not world.requests


@pytest.mark.parametrize("record", [[], ["v=STSv1; id=1", "v=STSv1; id=2"], ["v=STSv1; id=not-valid"], ["ERROR"]])
async def test_a_record_that_is_gone_wrong_or_not_to_be_had_ends_no_policy(world: World, record: list[str]) -> None:
    first = await world.ask()
    world.zones["_mta-sts.a.example"] = {"TXT": record} if record else {}
    for worker in (0, 1):
        answer = await world.ask(worker)
        assert answer.policy == first.policy is not None
        assert (answer.failure is TlsFailure.STS_POLICY_FETCH_ERROR) is (record != ["ERROR"])
    world.now_us += 604_800_000_000
    assert await world.ask() == NO_STS
    assert len(world.requests) == 1


async def test_a_new_id_brings_the_new_policy_to_both(world: World) -> None:
    await world.ask(0)
    await world.ask(1)
    world.now_us += REFETCH_S * 1_000_000
    world.record("2")
    world.body = ENFORCE.replace(b"enforce", b"testing")
    for worker in (0, 1):
        answer = await world.ask(worker)
        assert answer.policy is not None and (answer.policy.id, answer.policy.mode) == ("2", StsMode.TESTING)
    assert len(world.requests) == 2


async def test_what_another_worker_has_learned_counts_at_once(world: World) -> None:
    """Also if the DNS hides the record from this one."""
    world.record("")
    assert await world.ask(1) == NO_STS
    world.record("1")
    learned = await world.ask(0)
    world.record("")
    answer = await world.ask(1)
    assert answer.policy == learned.policy is not None


_CERTIFICATE = Unproved("https://x", "its certificate does not prove its name: expired")


@pytest.mark.parametrize(("change", "failure", "text"), [
    ({"body": _CERTIFICATE}, TlsFailure.STS_WEBPKI_INVALID, "does not prove its name: expired"),
    ({"body": Problem("https://x", "did not answer in time")}, TlsFailure.STS_POLICY_FETCH_ERROR, "in time"),
    ({"body": Problem("https://x", "BadStatusLine: \r\n\x1b[0m" + "x" * 999)}, TlsFailure.STS_POLICY_FETCH_ERROR, "??"),
    ({"body": ValueError("a bug")}, TlsFailure.STS_POLICY_FETCH_ERROR, "internal error: ValueError"),
    ({"body": b"nothing"}, TlsFailure.STS_POLICY_INVALID, "no version and no mode"),
    ({"status": 404}, TlsFailure.STS_POLICY_FETCH_ERROR, "status 404"),
    ({"status": 204}, TlsFailure.STS_POLICY_FETCH_ERROR, "status 204"),
    ({"status": 301}, TlsFailure.STS_POLICY_FETCH_ERROR, "redirections are not followed"),
    ({"media_type": "text/html"}, TlsFailure.STS_POLICY_FETCH_ERROR, "media type is 'text/html'"),
    ({"media_type": ""}, TlsFailure.STS_POLICY_FETCH_ERROR, "media type is ''"),
    ({"encoding": "gzip"}, TlsFailure.STS_POLICY_FETCH_ERROR, "encoded ('gzip')"),
])  # fmt: skip
async def test_a_fetch_that_fails(world: World, change: dict[str, Any], failure: TlsFailure, text: str) -> None:
    for name, value in change.items():
        setattr(world, name, value)
    for _ in range(3):
        answer = await world.ask()
        assert answer.policy is None and answer.failure is failure and text in answer.text
        assert answer.text.isprintable() and len(answer.text) < 500
    assert len(world.requests) == 1
    world.now_us += 2 * RETRY_S * 1_000_000
    world.body, world.status, world.media_type, world.encoding = ENFORCE, 200, "text/plain; charset=utf-8", ""
    answer = await world.ask()
    assert answer.policy is not None and answer.failure is TlsFailure.NO_FAILURE


@pytest.mark.parametrize(("records", "text"), [
    ({"A": ["127.0.0.1"]}, "no address that can be asked (127.0.0.1)"),
    ({"AAAA": ["::1"]}, "no address that can be asked (::1)"),
    ({"A": ["224.0.0.1"]}, "no address that can be asked (224.0.0.1)"),
    ({"A": ["ERROR"], "AAAA": ["ERROR"]}, "could not be looked up"),
    ({}, "could not be looked up"),
])  # fmt: skip
async def test_a_policy_host_that_has_no_address(world: World, records: dict[str, Any], text: str) -> None:
    world.zones["mta-sts.a.example"] = records
    answer = await world.ask()
    assert answer.failure is TlsFailure.STS_POLICY_FETCH_ERROR and text in answer.text and not world.requests


async def test_a_loopback_address_if_it_is_allowed(world: World) -> None:
    world.zones["mta-sts.a.example"] = {"A": ["127.0.0.1"], "AAAA": ["2001:db8::1"]}
    world.options = StsOptions(loopback=True, port=8443)
    await world.ask()
    assert world.requests[0].addresses == ("127.0.0.1", "2001:db8::1")
    assert world.requests[0].url == "https://mta-sts.a.example:8443/.well-known/mta-sts.txt"


async def test_policies_that_count_as_for_testing(world: World) -> None:
    world.options = StsOptions(testing=True)
    answer = await world.ask()
    assert answer.policy is not None and answer.policy.mode is StsMode.TESTING
    assert "mode: enforce" in answer.policy.lines
    world.options = StsOptions()
    answer = await world.ask()
    assert answer.policy is not None and answer.policy.mode is StsMode.ENFORCE


async def test_roots_that_cannot_be_read(world: World) -> None:
    world.options = StsOptions(ca_file="/nowhere")
    answer = await world.ask()
    assert "root certificates cannot be read: No such file" in answer.text and answer.policy is None


async def test_a_renewal_asks_for_the_record_and_takes_its_id(world: World) -> None:
    await world.ask()
    world.record("2")
    world.take()
    world.now_us += 86_400_000_000
    world.office.look()
    while len(world.requests) < 2:
        await asyncio.sleep(0)
    for _ in range(9):
        await asyncio.sleep(0)
    answer = await world.ask()
    assert answer.policy is not None and answer.policy.id == "2" and len(world.requests) == 2


async def test_an_office_that_says_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await world.ask()
    world.options = StsOptions(time_s=0.01)
    monkeypatch.setattr("postroad.node.wiring.sts.ANSWER_S", 0.01)
    silent: Callable[..., None] = lambda *_: None  # noqa: E731
    monkeypatch.setattr(world.office, "ask", silent)
    world.now_us += 90_000_000_000
    assert (await world.ask()).policy == first.policy
    world.now_us += 604_800_000_000
    assert (await world.ask()).policy is None
