"""`python -m tests.fuzz TARGET [--seconds N] [--seed N] [--plain]`: run one target by hand.

Under atheris, where it is installed: coverage guided, from the seeds in the tree, what it learns kept in
var/fuzz/TARGET/corpus. Else, or with --plain, the mutating runner of `mutating`. What breaks a promise is written to
var/fuzz/TARGET, and the exit status is 1; move it to tests/fuzz/found/TARGET together with the mending.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import sys
import traceback
from functools import partial
from pathlib import Path

_KEPT = Path("var/fuzz")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz one target.")
    targets = ("server", "client", "grammar", "bdat", "porter", "authres", "dmarc", "dkim", "spf", "sts", "reports")
    parser.add_argument("target", choices=targets)
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--seed", type=int, default=1, help="the same seed of the plain runner gives the same inputs")
    parser.add_argument("--plain", action="store_true", help="no atheris, even where it is installed")
    parser.add_argument("--input", type=Path, help="play this one input and show how it fails")
    chosen = parser.parse_args(arguments)
    kept = _KEPT / chosen.target
    kept.mkdir(parents=True, exist_ok=True)
    if chosen.input is not None:
        return _one(chosen.target, chosen.input)
    if chosen.plain or importlib.util.find_spec("atheris") is None:
        return _plain(chosen.target, chosen.seconds, chosen.seed, kept)
    return _guided(chosen.target, chosen.seconds, chosen.seed, kept)


def _one(name: str, path: Path) -> int:
    from tests.fuzz.targets import TARGETS

    TARGETS[name].check(path.read_bytes())
    print(f"{name}: {path} breaks nothing")
    return 0


def _plain(name: str, seconds: int, seed: int, kept: Path) -> int:
    from tests.fuzz import mutating
    from tests.fuzz.targets import TARGETS

    tried, failures = mutating.run(TARGETS[name], seed, seconds=seconds, hasty=True)
    for failure in failures:
        path = kept / f"crash-{hashlib.sha1(failure.data).hexdigest()}"
        path.write_bytes(failure.data)
        traceback.print_exception(failure.error)
        print(f"{name}: {path} holds the input {failure.data!r}", file=sys.stderr)
    print(f"{name}: {tried} inputs in {seconds} s, without coverage (seed {seed}): {len(failures)} found")
    return 1 if failures else 0


def _guided(name: str, seconds: int, seed: int, kept: Path) -> int:
    atheris = importlib.import_module("atheris")  # may be missing, and says nothing of its types

    with atheris.instrument_imports(include=["postroad.protocol", "postroad.mail", "postroad.trust"]):
        from tests.fuzz.targets import TARGETS

    target = TARGETS[name]
    words = kept / "words"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
    learnt = kept / "corpus"
    learnt.mkdir(exist_ok=True)
    folders = [str(folder) for folder in (learnt, target.corpus, target.found) if folder.is_dir()]
    options = [
        f"-max_total_time={seconds}", f"-seed={seed}", f"-dict={words}", f"-artifact_prefix={kept}/", "-max_len=1024",
        "-timeout=30", "-print_final_stats=1",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, *folders], partial(target.check, hasty=True))
    atheris.Fuzz()  # ends the process: status 0 where nothing was found
    return 0


def _escaped(word: bytes) -> str:
    """As libFuzzer's dictionaries write a word."""
    return "".join(chr(octet) if octet < 128 and chr(octet).isalnum() else f"\\x{octet:02X}" for octet in word)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
