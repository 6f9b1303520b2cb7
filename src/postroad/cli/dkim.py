"""`postroad dkim`: makes, lists, rotates and removes the keys that sign mail (docs/keys.md).

The commands change the files of the keys by themselves, with the rights of the owner of the state folder, and then tell
a running node, which takes the change at once. Records for the DNS go to standard output, ready for a zone file; what
people should know goes to standard error.

How it fails: what cannot be done is one line on stderr and exit code 1; nothing was changed then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from postroad.cli.command import end, print_json, time_us, who
from postroad.cli.options import config_option, json_option, settings_of

if TYPE_CHECKING:
    from postroad.config.settings import Settings
    from postroad.operate.signing_keys import KeyFacts
    from postroad.trust.dkim_key import KeyKind
    from postroad.trust.key_store import KeyStore
    from postroad.trust.keyring import Private

TELL_S: Final = 90.0  # for the node to take a change
LOCK_TRIES: Final = 100
LOCK_PAUSE_S: Final = 0.05
KEY_FILE_MAX: Final = 65_536
_ALGORITHMS: Final = ("rsa", "ed25519")
_BITS: Final = ("1024", "2048", "3072", "4096")

_T = TypeVar("_T")


@click.group()
def dkim() -> None:
    """Make, list, rotate and remove the keys that sign mail (DKIM).

    A new key signs when the running node has seen its record in the DNS.
    """


@dkim.command()
@click.argument("domain")
@click.option("--selector", default="", metavar="NAME", help="Name of the key in the DNS. Default: kind and day.")
@click.option(
    "--algorithm", "algorithms", type=click.Choice(_ALGORITHMS), multiple=True,
    help="What kind of key. May be given twice. Default: both, because not all receivers can verify Ed25519.",
)
@click.option("--bits", type=click.Choice(_BITS), default="2048", show_default=True, help="Size of an RSA key.")
@click.option(
    "--key", "file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Take the private key of this file (PEM) instead of a new one. Needs --selector.",
)
@json_option
@config_option
def add(
    domain: str, selector: str, algorithms: tuple[str, ...], bits: str, file: Path | None, as_json: bool,
    config: Path | None,
) -> None:
    """Make keys for DOMAIN, and print the records for its zone.

    With --selector and both algorithms, the names of the keys are NAME-rsa and NAME-ed25519.
    """
    from postroad.operate import signing_keys
    from postroad.operate.signing_keys import NewKey, selector_for
    from postroad.trust.dkim_key import KeyKind
    from postroad.trust.keyring import selector_fault

    name, settings = _domain(domain), settings_of(config)
    given = None if file is None else _private(file, selector, algorithms)
    if selector and (fault := selector_fault(selector.lower(), name)) is not None:
        end(f"{fault.text}.")  # as it was written, without what is added for its kind
    kinds = tuple(map(KeyKind, dict.fromkeys(algorithms or _ALGORITHMS))) if given is None else (_kind_of(given),)
    wanted = tuple(NewKey(kind, int(bits), selector_for(selector.lower(), kind, len(kinds))) for kind in kinds)
    store = _store(settings, make=True)
    now_us = time_us()
    keys = _done(lambda: signing_keys.add(store, name, wanted, given, now_us))
    made = [each for each in _facts(settings, keys) if each.made_us == now_us]
    told = _tell(settings, [f"new key {each.selector} of {name}, made by {who()}" for each in made])
    _print_new(made, as_json, f"New keys of {name}. Publish these records in its zone. {told}")


@dkim.command("list")
@click.argument("domains", nargs=-1, metavar="[DOMAIN]...")
@json_option
@config_option
def list_(domains: tuple[str, ...], as_json: bool, config: Path | None) -> None:
    """List all keys, or those of DOMAIN: the state of each, and what comes next.

    Waiting: the record was not seen in the DNS yet. Signing: the key signs. Retired: the key does not sign any more,
    but mail that it has signed is still on its way. Removable: neither the key nor its record is needed any more.
    """
    settings = settings_of(config)
    store = _store(settings)
    wanted = tuple(map(_domain, domains))
    found = [each for keys in _every(store, wanted) for each in _facts(settings, keys)]
    if as_json:
        print_json(list(map(_shown, found)))
    elif not found:
        click.echo(f"There are no keys in {store.folder}.", err=True)
    else:
        _print_table(found)


@dkim.command()
@click.argument("domains", nargs=-1, metavar="[DOMAIN]...")
@click.option("--all", "every", is_flag=True, help="All domains that have keys.")
@click.option("--selector", default="", metavar="NAME", help="Name of the new key. Default: its kind and the day.")
@click.option("--bits", type=click.Choice(_BITS), help="Size of a new RSA key. Default: as before, but at least 2048.")
@json_option
@config_option
def rotate(
    domains: tuple[str, ...], every: bool, selector: str, bits: str | None, as_json: bool, config: Path | None
) -> None:
    """Make a new key in place of each key of DOMAIN that signs, and print the records for its zone.

    The old keys sign until the node has seen the new records in the DNS. If a new key waits already, its record is
    printed again.
    """
    from postroad.operate import signing_keys

    if every == bool(domains):
        raise click.UsageError("Name domains, or say --all.")
    if selector and len(domains) != 1:
        raise click.UsageError("--selector needs one domain.")
    settings = settings_of(config)
    store = _store(settings)
    names = tuple(map(_domain, domains)) or tuple(keys.domain for keys in _every(store, ()))
    shown: list[KeyFacts] = []
    done: list[str] = []
    refused: list[str] = []
    now_us = time_us()
    for name in names:
        change = partial(signing_keys.rotate, store, name, int(bits or 0), selector.lower(), now_us)
        changed = _attempted(change)
        if isinstance(changed, str):
            refused.append(changed)
            continue
        keys, waiting = changed
        found = [each for each in _facts(settings, keys) if each.selector in waiting]
        shown += found
        done += [f"new key {each.selector} of {name}, made by {who()}" for each in found if each.made_us == now_us]
    if shown:
        text = "New keys" if done else "These keys wait already"
        told = f" {_tell(settings, done)}" if done else ""
        _print_new(shown, as_json, f"{text}. Publish these records; the old keys sign until then.{told}")
    elif not refused:
        end("There is nothing to rotate.")
    if refused:
        end("\n".join(refused))


@dkim.command()
@click.argument("domain")
@click.argument("selectors", nargs=-1, metavar="[SELECTOR]...")
@click.option("--removable", is_flag=True, help="All keys of the domain that are not needed any more.")
@click.option("--yes", is_flag=True, help="Remove them even if mail of the domain is not signed any more then.")
@json_option
@config_option
def remove(
    domain: str, selectors: tuple[str, ...], removable: bool, yes: bool, as_json: bool, config: Path | None
) -> None:
    """Remove keys of DOMAIN: those of the named SELECTORs, or all.

    The running node does not sign with them any more when the command ends. Without --yes, the command refuses to
    remove the last key that signs.
    """
    from postroad.operate import signing_keys

    if removable and selectors:
        raise click.UsageError("Name selectors, or say --removable.")
    name, settings = _domain(domain), settings_of(config)
    store = _store(settings)
    before = {each.selector: each for each in _facts(settings, _done(lambda: signing_keys.domain_keys(store, name)))}
    chosen = tuple(each.lower() for each in selectors)
    if removable:
        chosen = tuple(each.selector for each in before.values() if each.state == "removable")
        if not chosen:
            end(f"No key of {name} is removable yet.")
    gone = _done(lambda: signing_keys.remove(store, name, chosen, sure=yes))
    told = _tell(settings, [f"key {each.selector} of {name} removed by {who()}" for each in gone])
    removed = [before[each.selector] for each in gone if each.selector in before]
    if as_json:
        print_json(list(map(_shown, removed)))
        return
    for each in removed:
        click.echo(f"Removed {each.selector} of {name}. {_record_of_removed(settings, each)}", err=True)
    click.echo(told, err=True)


def _record_of_removed(settings: Settings, key: KeyFacts) -> str:
    """What to do with the record of a key that is gone."""
    from postroad.config import options

    if key.state in ("waiting", "removable"):
        return f"Remove its record, {key.name}, from the DNS."
    until_us = key.removable_us or time_us() + int(options.rotation_options(settings).keep_s * 1e6)
    from postroad.operate.present import moment

    return f"Leave its record, {key.name}, in the DNS until {moment(until_us)}: mail that it signed is on its way."


# ---- Steps


def _domain(written: str) -> str:
    from postroad.trust import keyring

    found = keyring.canonical(written)
    if found is None:
        raise click.UsageError(f"{written!r} is not a domain name.")
    return found


def _private(file: Path, selector: str, algorithms: tuple[str, ...]) -> Private:
    """The private key of a file, as the user who called may read it."""
    from postroad.trust.dkim_sign import PrivateKeyFault, parse_private_key

    if not selector or algorithms:
        raise click.UsageError("--key needs --selector, and no --algorithm.")
    try:
        with file.open("rb") as opened:
            found = parse_private_key(opened.read(KEY_FILE_MAX))
    except OSError as error:
        end(f"{file}: {error.strerror or error}")
    if isinstance(found, PrivateKeyFault):
        end(f"{file}: {found.text}")
    return found


def _kind_of(private: Private) -> KeyKind:
    from postroad.trust.dkim_key import KeyKind

    return KeyKind.RSA if hasattr(private, "key_size") else KeyKind.ED25519


def _store(settings: Settings, *, make: bool = False) -> KeyStore:
    """The store of the node, with the rights of its owner."""
    from postroad.operate.key_folder import open_store
    from postroad.operate.view import CannotRead

    try:
        return open_store(settings, time_us, make=make)
    except CannotRead as error:
        end(str(error))


def _every(store: KeyStore, wanted: tuple[str, ...]) -> Iterator[Any]:
    """The keys of these domains, or of all, in the order of their names."""
    from postroad.operate.view import who_may

    problems = store.load()
    for name in wanted or sorted(store.domains):
        if name in store.domains:
            yield store.domains[name]
        elif not any(f"/{name}." in each.where for each in problems):
            end(f"{name} has no keys; `postroad dkim add {name}` makes some.")
    if problems:
        closed = any("may not be read" in each.text for each in problems)
        end("\n".join([*map(str, problems), *([who_may(store.folder)] if closed else [])]))


def _done(change: Callable[[], _T]) -> _T:
    """What a change gives; the end of the command if it cannot be made."""
    found = _attempted(change)
    if isinstance(found, str):
        end(found)
    return found


def _attempted(change: Callable[[], _T]) -> _T | str:
    """What a change gives, or why it cannot be made. While another process changes keys, this waits a moment."""
    from postroad.operate.signing_keys import KeysRefused
    from postroad.operate.view import cannot_read

    for left in reversed(range(LOCK_TRIES)):
        try:
            return change()
        except BlockingIOError:
            if not left:
                return "Another process is changing keys; try again."
            time.sleep(LOCK_PAUSE_S)
        except KeysRefused as error:
            return f"{str(error).removesuffix('.')}."
        except OSError as error:
            return cannot_read(Path(error.filename or "."), error)
    raise AssertionError


def _facts(settings: Settings, keys: Any) -> tuple[KeyFacts, ...]:
    from postroad.config import options
    from postroad.operate import signing_keys

    return signing_keys.facts(keys, time_us(), options.rotation_options(settings))


def _tell(settings: Settings, done: list[str]) -> str:
    """Has the running node take the change. What became of it, for people."""
    from postroad.operate import control
    from postroad.operate.requests import KeysRequest, KeysSummary

    try:
        control.ask(settings.state_dir, KeysRequest(tuple(done)), KeysSummary, TELL_S)
    except control.NotRunning:
        return "No node runs; it takes the change when it starts."
    except control.NodeRefused as error:
        return f"The node could not be told ({error}); it finds the change by itself within seconds."
    return "The node has taken the change."


# ---- What is shown


def _print_new(made: list[KeyFacts], as_json: bool, text: str) -> None:
    if as_json:
        print_json(list(map(_shown, made)))
        return
    for each in made:
        click.echo(each.zone_line)
    click.echo(text, err=True)


def _print_table(found: list[KeyFacts]) -> None:
    from postroad.cli.table import print_table
    from postroad.operate.present import moment

    rows = [
        (each.domain, each.selector, f"{each.algorithm} {each.bits}" if each.algorithm == "rsa" else each.algorithm,
         each.state, moment(each.since_us), each.next)
        for each in found
    ]  # fmt: skip
    print_table(("DOMAIN", "SELECTOR", "ALGORITHM", "STATE", "SINCE", "NEXT STEP"), rows)


def _shown(key: KeyFacts) -> dict[str, Any]:
    """A key in JSON, with times as the other commands have them."""
    import msgspec

    from postroad.report.notation import iso

    found = msgspec.to_builtins(key)
    for name in ("since", "made", "removable"):
        at_us = found.pop(f"{name}_us")
        found[name] = iso(at_us) if at_us else None
    return dict(found)
