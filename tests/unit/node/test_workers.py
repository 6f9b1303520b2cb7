"""Worker processes: started again when they die, later and later if they die at once, and stopped in time."""

from __future__ import annotations

import asyncio
import subprocess
from typing import Any

import pytest

from postroad.node import workers as module
from postroad.node.frames import FromWorker, Stop, ToWorker
from postroad.node.workers import Worker, Workers


class Process:
    """A process as `subprocess` gives it. `returncode`: None while it runs."""

    def __init__(self) -> None:
        self.pid = 4711
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self.returncode

    def kill(self) -> None:
        self.returncode = -9

    def wait(self) -> int:
        assert self.returncode is not None
        return self.returncode


class Link:
    """The link to a worker that is not there."""

    def __init__(self, ours: Any, loop: Any, read: Any, on_frame: Any, on_end: Any) -> None:
        ours.close()
        self.sent: list[ToWorker] = []
        self.on_end = on_end

    def send(self, frame: ToWorker, descriptors: list[int] | None = None) -> None:
        self.sent.append(frame)

    def close(self) -> None:
        self.on_end("")


class Site:
    """Workers whose processes do nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.heard: list[str] = []
        self.said: list[str] = []
        self.processes: list[Process] = []
        self.refused: OSError | None = None
        self.pauses: list[float] = []
        monkeypatch.setattr(subprocess, "Popen", self._popen)
        monkeypatch.setattr(module, "Link", Link)
        self.workers = Workers(
            porter=tuple,
            inherited=lambda: 7,
            on_started=lambda worker: self.heard.append(f"started {worker.number}"),
            on_frame=self._on_frame,
            on_link_ended=lambda worker, why: self.heard.append(f"link of {worker.number} ended"),
            on_ended=lambda worker: self.heard.append(f"ended {worker.number}"),
            say=lambda level, text: self.said.append(f"{level}: {text}"),
        )
        loop = asyncio.get_running_loop()
        self._later: list[tuple[Any, tuple[Any, ...]]] = []
        monkeypatch.setattr(loop, "call_later", self._call_later)

    def _popen(self, command: list[str], **named: Any) -> Process:
        if self.refused is not None:
            raise self.refused
        assert 7 in named["pass_fds"], "the lock is inherited"
        self.processes.append(Process())
        return self.processes[-1]

    def _on_frame(self, worker: Worker, frame: FromWorker) -> None:
        raise AssertionError("nobody sends")

    def _call_later(self, pause_s: float, work: Any, *arguments: Any) -> None:
        self.pauses.append(pause_s)
        self._later.append((work, arguments))

    def wait(self) -> None:
        """The next timer goes off."""
        work, arguments = self._later.pop(0)
        work(*arguments)

    def die(self, code: int) -> None:
        """The process that was started last ends."""
        self.processes[-1].returncode = code
        self.workers.reap()


@pytest.fixture
async def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(monkeypatch)


async def test_a_worker_that_dies_is_started_again_with_a_new_link(site: Site) -> None:
    site.workers.start_all(1)
    first = site.workers[0].link
    site.die(-11)
    assert site.heard == ["started 0", "ended 0", "link of 0 ended"]
    assert len(site.said) == 1 and site.said[0].startswith("error: worker 0 ended with signal 11 after ")
    site.wait()
    assert site.heard[3:] == ["started 0"] and site.workers[0].link not in (None, first)
    site.workers.reap()
    assert len(site.processes) == 2, "the new process runs"


async def test_one_that_dies_at_once_again_and_again_is_started_later_and_later(site: Site) -> None:
    site.workers.start_all(1)
    for _ in range(10):
        site.die(1)
        site.wait()
    assert site.pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    site.workers[0].started -= 60  # it lived for a minute
    site.die(1)
    assert site.pauses[-1] == 0.05


async def test_a_process_that_cannot_be_made_is_tried_again(site: Site) -> None:
    site.workers.start_all(1)
    site.die(1)
    site.refused = OSError(11, "Resource temporarily unavailable")
    site.wait()
    assert site.said[-1].startswith("error: worker 0 cannot be started (Resource temporarily unavailable)")
    site.refused = None
    site.wait()
    assert len(site.processes) == 2 and site.workers[0].process is site.processes[-1]


async def test_none_is_started_again_when_the_node_stops_and_the_slow_are_killed(site: Site) -> None:
    site.workers.start_all(2)
    site.workers.tell_stop(30.0)
    links = [worker.link for worker in site.workers]
    assert all(isinstance(link, Link) and link.sent == [Stop(30.0)] for link in links)
    site.die(0)
    assert not site.pauses and site.workers[1].process is None
    await site.workers.wait_ended(0.0)
    assert site.processes[0].returncode == -9
    assert site.said == ["warning: worker 0 did not stop in time; its mail is safe in the spool"]


async def test_frames_to_a_worker_without_a_link_are_dropped(site: Site) -> None:
    site.workers.start_all(1)
    site.die(1)
    site.workers.send(0, Stop(1.0))
    assert site.workers[0].link is None
    assert site.workers[0].status().pid == 0
