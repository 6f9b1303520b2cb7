"""`postroad map`: shows what maps answer, and how often they are asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from postroad.cli.options import config_option, json_option, settings_of, state_dir_of

if TYPE_CHECKING:
    from postroad.maps.face import MapCounts
    from postroad.operate.maps import StepAnswer


@click.group("map")
def maps() -> None:
    """Ask a map, or list all maps (docs/maps.md)."""


@maps.command()
@click.argument("name")
@click.argument("key")
@config_option
@json_option
def test(name: str, key: str, config: Path | None, as_json: bool) -> None:
    """Show what the map NAME answers to KEY, step by step.

    For an address: the whole address, the address without its extension, the local-part, the whole domain, the domain,
    its parents. For a domain: the domain, its parents. A setting that uses the map takes the first answer of the steps
    that it looks up (docs/maps.md). The command reads the configuration file; no node needs to run. Ends with 1 if no
    step has an answer, with 75 if the map cannot answer now.
    """
    from postroad.cli.command import end, print_json
    from postroad.operate.maps import test as ask

    settings = settings_of(config)
    known = [each.name for each in settings.map]
    if name not in known:
        end(f"There is no map {name!r}; the maps are: {', '.join(known) or 'none'}")
    found = ask(settings, name, key)
    if isinstance(found, tuple):
        end("\n".join(map(str, found)))
    if as_json:
        print_json(found)
    else:
        _print(found)
    if any(each.not_now for each in found):
        raise SystemExit(75)
    if all(each.value is None for each in found):
        raise SystemExit(1)


@maps.command("list")
@config_option
@json_option
def listed(config: Path | None, as_json: bool) -> None:
    """List the maps of the running node, with what they were asked since each worker started.

    ASKED: look-ups; each step counts. FOUND: look-ups with a value. NOT NOW: look-ups that the map could not answer.
    ENTRIES: the entries of its file. USED: how many of them have been an answer, in the worker with the largest number.
    """
    from postroad.cli.command import end, print_json
    from postroad.cli.table import print_table
    from postroad.operate.control import NodeRefused, NotRunning
    from postroad.operate.maps import counts

    try:
        found = counts(state_dir_of(config))
    except NotRunning:
        end("The node is not running.")
    except NodeRefused as error:
        end(str(error))
    if as_json:
        print_json(found)
    elif not found:
        click.echo("There are no maps.")
    else:
        headings = ("MAP", "KIND", "ASKED", "FOUND", "NOT NOW", "ENTRIES", "USED", "STATE")
        print_table(headings, [_line(each) for each in found], frozenset(range(2, 7)))


@maps.command("entries")
@click.argument("name")
@click.option("--unused", is_flag=True, help="Only entries that were never an answer.")
@config_option
@json_option
def entries(name: str, unused: bool, config: Path | None, as_json: bool) -> None:
    """List the entries of the map NAME, with the time when each was last an answer.

    That is known since the node has started, or has last read the file. The map must be of kind inline, text,
    aliases, regexp, pcre or cidr.
    """
    from postroad.cli.command import end, print_json, time_us
    from postroad.cli.table import print_table
    from postroad.operate.control import NodeRefused, NotRunning
    from postroad.operate.maps import entries as listed
    from postroad.operate.present import when

    settings = settings_of(config)
    known = [each.name for each in settings.map]
    if name not in known:
        end(f"There is no map {name!r}; the maps are: {', '.join(known) or 'none'}")
    try:
        found = listed(settings, name)
    except NotRunning:
        end("The node is not running.")
    except NodeRefused as error:
        end(str(error))
    if found is None:
        kinds = "inline, text, aliases, regexp, pcre or cidr"
        end(f"The entries of the map {name!r} cannot be listed: it is not of kind {kinds}.")
    if isinstance(found, tuple):
        end("\n".join(map(str, found)))
    rows = [each for each in found if not (unused and each.used_us)]
    now_us = time_us()
    if as_json:
        print_json(rows)
    else:
        used = [(each.key, each.value, when(each.used_us, now_us) if each.used_us else "-") for each in rows]
        print_table(("KEY", "VALUE", "LAST USED"), used)


def _line(map: MapCounts) -> tuple[str, ...]:
    numbers = (map.asked, map.found, map.not_now, map.entries, map.used)
    state = f"cannot answer now: {map.away}" if map.away else "answers"
    return map.name, map.kind, *("" if number < 0 else str(number) for number in numbers), state


def _print(found: list[StepAnswer]) -> None:
    from postroad.cli.table import print_table

    rows = [(each.step, each.key, _answer(each)) for each in found]
    print_table(("STEP", "KEY", "ANSWER"), rows)


def _answer(step: StepAnswer) -> str:
    if step.not_now:
        return f"cannot answer now: {step.not_now}"
    return "-" if step.value is None else step.value
