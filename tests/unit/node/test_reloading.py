"""A reload is taken by all workers or by none, one at a time."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from postroad.config.load import parse
from postroad.config.settings import Settings
from postroad.node.frames import Abandon, Commit, Prepare, Prepared, Stop, Sync, Synced, ToWorker
from postroad.node.loaded import LoadedConfiguration
from postroad.node.questions import WorkerQuestions
from postroad.node.reloading import Reloading
from postroad.node.sockets import Endpoint, ListeningSockets
from postroad.node.workers import Worker, Workers
from postroad.world.system import ServiceManager

TEXT = 'hostname = "{}"\nstate_dir = "state"\n[[domain]]\nname = "example.org"\nrecipients = "any"\npath = "mail"\n'
LISTENER = '[[listener]]\nname = "{}"\naddress = "unix:{}"\n'


class Site:
    """Two workers that answer as `problems` says; all that was sent to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.problems = ["", ""]
        self.sent: list[tuple[int, ToWorker]] = []
        self.said: list[str] = []
        self.taken: list[str] = []
        self.found: Settings | list[str] = []
        self.loads = 0
        self.outdated: list[int] = []
        self.workers = [Worker(0), Worker(1)]
        for worker in self.workers:
            worker.link = cast(Any, SimpleNamespace(send=self._sender(worker)))
            worker.ready = True
        settings = self.settings("old.example", "first")
        self.sockets = ListeningSockets(lambda settings, endpoint, problem: str(problem))
        self.sockets.add(self.sockets.bind_missing(settings, 2)[0])
        self.all = cast(Workers, _All(self.workers))
        self.questions = WorkerQuestions(lambda number, frame: self.workers[number].send(frame), lambda: [0, 1])
        self.reloading = Reloading(
            settings,
            self._load,
            workers=self.all,
            questions=self.questions,
            sockets=self.sockets,
            loaded=LoadedConfiguration(None, lambda: 1),
            manager=ServiceManager({}),
            on_taken=lambda settings: self.taken.append(settings.hostname),
            on_outdated=lambda worker: self.outdated.append(worker.number),
            say=lambda level, text: self.said.append(text),
        )
        for worker in self.workers:
            worker.settings = settings

    def settings(self, hostname: str, *listeners: str) -> Settings:
        text = TEXT.format(hostname) + "".join(LISTENER.format(name, self.folder / name) for name in listeners)
        found = parse(text, self.folder / "postroad.toml", files=False)
        assert isinstance(found, Settings), [str(each) for each in found]
        return found

    def _load(self) -> Settings | list[str]:
        self.loads += 1
        return self.found

    def _sender(self, worker: Worker) -> Any:
        def send(frame: ToWorker, descriptors: list[int] | None = None) -> None:
            self.sent.append((worker.number, frame))
            match frame:
                case Prepare(question):
                    self.questions.on_answer(worker.number, question, Prepared(question, self.problems[worker.number]))
                case Sync(question):
                    self.questions.on_answer(worker.number, question, Synced(question))
                case Commit(added):
                    assert len(descriptors or ()) == len(added) and all(map(os.fstat, descriptors or ()))

        return send

    def kinds(self) -> list[str]:
        return [type(frame).__name__ for _, frame in self.sent]


class _All(list[Worker]):
    stopping = False

    @property
    def all_ready(self) -> bool:
        return all(worker.ready for worker in self)


@pytest.fixture
async def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


async def test_all_workers_prepare_before_any_takes_it(site: Site) -> None:
    site.found = site.settings("new.example", "second")
    assert await site.reloading.outcome() == []
    assert site.kinds() == ["Prepare", "Prepare", "Commit", "Commit", "Sync", "Sync"]
    assert site.taken == ["new.example"] and site.reloading.settings is site.found
    assert all(worker.settings is site.found for worker in site.workers)
    assert site.sockets.endpoints == (Endpoint(path=str(site.folder / "second")),)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(site.folder / "second"))
        with socket.socket(socket.AF_UNIX) as refused, pytest.raises(OSError):
            refused.connect(str(site.folder / "first"))


async def test_a_worker_that_cannot_changes_nothing_for_anybody(site: Site) -> None:
    site.found, site.problems[1] = site.settings("new.example", "first", "second"), "aliases: line 3 is wrong"
    assert await site.reloading.outcome() == ["worker 1: aliases: line 3 is wrong"]
    assert site.kinds() == ["Prepare", "Prepare", "Abandon", "Abandon"]
    assert site.taken == [] and site.reloading.settings.hostname == "old.example"
    assert len(site.sockets.endpoints) == 1
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(OSError):
        client.connect(str(site.folder / "second"))
    assert site.said[-1] == "the new configuration is refused; the old one stays in force"


async def test_a_place_that_cannot_be_had_is_found_before_a_worker_is_asked(site: Site) -> None:
    site.found = site.settings("new.example", "first", "missing/second")
    (problem,) = await site.reloading.outcome()
    assert "missing" in problem
    assert site.kinds() == ["Abandon", "Abandon"]


async def test_what_is_taken_at_the_start_only_is_refused(site: Site) -> None:
    site.found = cast(Settings, site.settings("new.example", "first").model_copy(update={"user": "other"}))
    (problem,) = await site.reloading.outcome()
    assert problem == "a change of `user` needs a restart of the node" and site.sent == []


async def test_a_reload_that_is_asked_for_meanwhile_follows(site: Site) -> None:
    site.found = ["postroad.toml:1: wrong"]
    first = asyncio.ensure_future(site.reloading.outcome())
    while not site.loads:
        await asyncio.sleep(0)
    second = asyncio.ensure_future(site.reloading.outcome())
    assert await first == await second == ["postroad.toml:1: wrong"]
    assert site.loads == 2 and not site.reloading.under_way


async def test_a_worker_that_came_up_with_outdated_settings_is_started_again(site: Site) -> None:
    other = site.settings("other.example", "first")
    site.workers[1].settings = other
    site.reloading.renew(site.workers[1])
    assert site.outdated == [1]
    assert [(number, type(frame)) for number, frame in site.sent] == [(1, Stop)]
    site.reloading.renew(site.workers[0])
    assert len(site.sent) == 1


async def test_one_that_was_started_again_in_the_meantime_does_not_commit(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its new process has prepared nothing."""
    prepare = site.reloading._questions.ask

    async def ask(make: Any, answer: Any) -> Any:
        answers = await prepare(make, answer)
        if answer is Prepared:
            site.workers[1].link = cast(Any, SimpleNamespace(send=site._sender(site.workers[1])))
        return answers

    monkeypatch.setattr(site.questions, "ask", ask)
    site.found = site.settings("new.example", "first")
    assert await site.reloading.outcome() == []
    assert [number for number, frame in site.sent if isinstance(frame, Commit)] == [0]
    assert [number for number, frame in site.sent if isinstance(frame, Stop)] == [1], "it has the old settings"
    assert not [frame for _, frame in site.sent if isinstance(frame, Abandon)]
