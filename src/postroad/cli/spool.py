"""`postroad spool`: checks and repairs the files of the spool; exports mail to files and imports it.

`check` and `export` read, whether the node runs or not. `repair` and `import` write, and need it to be stopped: the
shards belong to its workers.

How it fails: one line on stderr and exit code 1. `check` ends with 1 if anything is wrong, or lies set aside.
"""

from __future__ import annotations

import grp
import os
import pwd
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from postroad.cli.command import end, print_json, time_us
from postroad.cli.options import config_option, filter_options, json_option, settings_of, state_dir_of
from postroad.mail.numbers import counted

if TYPE_CHECKING:
    from postroad.config.settings import Settings
    from postroad.operate.importing import Imported
    from postroad.operate.mailfiles import ExportedMail
    from postroad.operate.rights import Rights
    from postroad.store.sqlite.checking import CheckedShard
    from postroad.store.sqlite.reader import SpoolReader

_ROUNDS_MAX = 1000  # rounds of checking and repairing one spool: each mends up to a hundred findings of a shard


@click.group()
@config_option
@click.pass_context
def spool(context: click.Context, config: Path | None) -> None:
    """Check and repair the spool; export mail to files and import it."""
    context.obj = config


# --- check and repair


@spool.command()
@json_option
@config_option
@click.pass_obj
def check(outer: Path | None, as_json: bool, config: Path | None) -> None:
    """Look for damage in the database files and in how their messages fit together.

    Works while the node runs. Ends with 1 if anything is wrong, or if there are damaged files that were set aside.
    """
    directory, state_dir = _readable_spool(config or outer)
    checked, aside = _checked(directory, state_dir)
    findings = [finding for each in checked for finding in each.findings]
    if as_json:
        print_json({"shards": checked, "set_aside": aside})
    else:
        for each in checked:
            state = "sound" if not each.findings else counted(len(each.findings), "finding")
            click.echo(f"{each.path}: {counted(each.messages, 'message')}, {state}")
            _print_findings(each)
        for name in aside:
            click.echo(f"{directory / name}: set aside as damaged. All that could be saved is in the spool; move it "
                       "away when you no longer need it")  # fmt: skip
        if findings:
            click.echo("To repair it, stop the node and run `postroad spool repair`", err=True)
    sys.exit(1 if findings or aside else 0)


@spool.command()
@click.option("--dry-run", "-n", is_flag=True, help="Only print what is wrong.")
@json_option
@config_option
@click.pass_obj
def repair(outer: Path | None, dry_run: bool, as_json: bool, config: Path | None) -> None:
    """Repair what `check` finds. The node must be stopped.

    A damaged shard is set aside, and everything that can be read from it is saved into a new one. A message is held,
    with the reason, if its content is missing, or if nobody knows which recipients have already received it. Nothing
    is thrown away.
    """
    directory, state_dir = _readable_spool(config or outer)
    _need_stopped(state_dir)
    said: list[str] = []
    checked, _ = _checked(directory, state_dir)
    if not dry_run:
        said, checked = _repaired(directory, state_dir, checked)
    if as_json:
        print_json({"done": said, "shards": checked})
    else:
        for line in said:
            click.echo(line)
        for each in checked:
            _print_findings(each)
        if not said and not any(each.findings for each in checked):
            click.echo("There is nothing to repair.")
    sys.exit(1 if any(each.findings for each in checked) else 0)


def _repaired(directory: Path, state_dir: Path, checked: list[CheckedShard]) -> tuple[list[str], list[CheckedShard]]:
    """What was done, and what is still wrong then. A shard has more findings than are told at a time, so again."""
    import sqlite3

    from postroad.store.face import SpoolError
    from postroad.store.sqlite import repair as repairing

    said: dict[str, None] = {}
    for _ in range(_ROUNDS_MAX):
        before = [each.findings for each in checked]
        try:
            for each in checked:
                if each.findings:
                    said.update(dict.fromkeys(repairing.repair(directory, each, time_us)))
        except (SpoolError, sqlite3.Error, OSError) as error:
            end(str(error))
        checked, _ = _checked(directory, state_dir)
        if [each.findings for each in checked] == before or not any(each.findings for each in checked):
            break
    return list(said), checked


def _checked(directory: Path, state_dir: Path) -> tuple[list[CheckedShard], list[str]]:
    from postroad.operate import control
    from postroad.operate.view import cannot_read
    from postroad.store.sqlite import checking

    try:
        running = control.is_running(state_dir)
        return checking.check(directory, running=running), checking.set_aside(directory)
    except OSError as error:
        end(cannot_read(directory, error))


def _print_findings(each: CheckedShard) -> None:
    for finding in each.findings:
        click.echo(f"  {finding.id}: {finding.text}" if finding.id else f"  {finding.text}")


# --- export and import


@spool.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.argument("selectors", metavar="[SELECTOR]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Everything in the queue.")
@filter_options
@json_option
@config_option
@click.pass_obj
def export(
    outer: Path | None, folder: Path, selectors: tuple[str, ...], everything: bool, held: bool | None, recipient: str,
    sender: str, destination: str, as_json: bool, config: Path | None,
) -> None:  # fmt: skip
    """Write messages into FOLDER: the content as ID.eml, the envelope as ID.json.

    The messages stay in the queue. After you have imported them elsewhere, remove them from the queue; otherwise they
    are delivered twice. Each file holds the message with all of its waiting recipients. SELECTOR is the same as for
    `postroad queue`.
    """
    from postroad.operate import selector

    narrowed = any((recipient, sender, destination)) or held is not None
    chosen = selector.selections(selectors, everything=everything, filtered=narrowed)
    if isinstance(chosen, str):
        raise click.UsageError(chosen)
    selections = [
        selector.narrowed(each, sender=sender, recipient=recipient, destination=destination, held=held)
        for each in chosen
    ]
    lines, failed = _exported(_existing_spool(config or outer), folder, selections)
    if as_json:
        print_json(lines)
    else:
        for line in lines:
            click.echo(f"{line['id']}: {line['text']}")
        done = sum(line["done"] for line in lines)
        click.echo(f"exported {done} of {counted(len(lines), 'message')} to {folder}", err=True)
    sys.exit(1 if failed or not lines else 0)


def _exported(directory: Path, folder: Path, selections: list[Any]) -> tuple[list[dict[str, Any]], bool]:
    """The spool is read with the rights of its owner; the files are written with those of who called."""
    from postroad.operate.rights import Rights
    from postroad.store.sqlite.reader import SpoolReader

    folder = folder.absolute()
    lines: list[dict[str, Any]] = []
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        rights = Rights(directory)
        with rights.as_owner():
            reader = SpoolReader(directory)
            for id in sorted({id for each in selections for id in reader.select(each)}):
                line = _exported_one(reader, rights, id, folder)
                lines += [] if line is None else [line]
    except OSError as error:
        end(f"{error.filename or folder}: {error.strerror or error}")
    for fault in reader.faults:
        click.echo(f"left out: {fault}", err=True)
    return lines, bool(reader.faults) or not all(line["done"] for line in lines)


def _exported_one(reader: SpoolReader, rights: Rights, id: int, folder: Path) -> dict[str, Any] | None:
    """What became of one message; None if it has ended meanwhile."""
    from postroad.mail import identifier
    from postroad.operate import mailfiles

    loaded, content = reader.load(id), reader.content(id)
    if loaded is None:
        return None
    line: dict[str, Any] = {"id": identifier.text(id), "done": True, "text": "exported"}
    try:
        try:
            with rights.as_caller():
                path = mailfiles.write(folder, loaded.envelope, loaded.waiting, content)
        except OSError as error:
            if reader.load(id) is None:
                return None  # its file has gone with it
            if content is None or isinstance(content, bytes) or error.filename != content.path:
                raise
            content = None
            with rights.as_caller():
                path = mailfiles.write(folder, loaded.envelope, loaded.waiting, None)
        line["path"] = str(path)
        if content is None:
            line |= {"done": False, "text": "only its envelope is exported: the content cannot be read"}
    except FileExistsError as error:
        line |= {"done": False, "text": f"not exported: {error.filename} already exists"}
    except OSError as error:
        line |= {"done": False, "text": f"not exported: {error.filename or folder}: {error.strerror or error}"}
    return line


@spool.command("import")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--dry-run", "-n", is_flag=True, help="Only check the files and print what would be done.")
@click.option("--again", is_flag=True, help="Also import files that have been imported before.")
@json_option
@config_option
@click.pass_obj
def import_(
    outer: Path | None, paths: tuple[Path, ...], dry_run: bool, again: bool, as_json: bool, config: Path | None
) -> None:
    """Import mail from the files of `export` into the queue. The node must be stopped.

    PATH is a folder, or the .json of a message whose .eml is beside it. All files are checked first; if one of them is
    faulty, nothing is imported. Messages get new queue ids, and held mail stays held. Each imported .json is marked
    (ID.json.imported), so that it is not imported twice.
    """
    from postroad.operate import importing
    from postroad.operate.offline import CannotOpen
    from postroad.operate.view import spool_directory

    settings = settings_of(config or outer)
    directory = spool_directory(settings.state_dir)
    if not dry_run:
        _need_stopped(settings.state_dir)
    mails, skipped = _read(paths, again)
    if not dry_run:
        _make_spool(settings)
    try:
        done = [_would(each) for each in mails] if dry_run else importing.run(settings, directory, mails)
    except CannotOpen as error:
        end(str(error))
    lines = sorted([*done, *skipped], key=lambda each: each.path)
    if as_json:
        print_json(lines)
    else:
        for each in lines:
            click.echo(f"{each.path}: {each.text}" + (f" as {each.id}" if each.done and each.id else ""))
        count = sum(each.done for each in lines)
        click.echo(f"{'would import' if dry_run else 'imported'} {count} of {counted(len(lines), 'message')}", err=True)
    sys.exit(0 if all(each.done for each in done) and lines else 1)


def _read(paths: tuple[Path, ...], again: bool) -> tuple[list[ExportedMail], list[Imported]]:
    """All files, checked; and those that are left out because they were imported before."""
    from postroad.operate import mailfiles
    from postroad.operate.importing import Imported, imported_before

    mails: list[ExportedMail] = []
    skipped: list[Imported] = []
    problems: list[str] = []
    try:
        found = mailfiles.found(paths)
    except mailfiles.UnfitFile as error:
        end(str(error))
    for path in found:
        try:
            before = "" if again else imported_before(path)
            if before:
                skipped.append(Imported(str(path), path.stem, before, 0, False, f"was imported before, as {before}"))
            else:
                mails.append(mailfiles.read(path))
        except (mailfiles.UnfitFile, OSError) as error:
            problems.append(str(error))
    if problems:
        end("\n".join([*problems, "nothing was imported"]))
    if not found:
        end("there is nothing to import: the paths hold no .json file")
    return mails, skipped


def _would(mail: ExportedMail) -> Imported:
    from postroad.mail import identifier
    from postroad.operate.importing import Imported

    count = len(mail.envelope.recipients)
    text = f"would be imported, for {count} recipient{'s' if count > 1 else ''}"
    return Imported(str(mail.path), identifier.text(mail.envelope.id), "", count, True, text)


# --- common to all


def _readable_spool(config: Path | None) -> tuple[Path, Path]:
    """The spool's folder and the state folder; we are the spool's owner from here on."""
    from postroad.operate.view import CannotRead, open_spool, spool_directory

    state_dir = state_dir_of(config)
    try:
        open_spool(state_dir)
    except CannotRead as error:
        end(str(error))
    return spool_directory(state_dir), state_dir


def _existing_spool(config: Path | None) -> Path:
    """The spool's folder, looked at with the rights that we have."""
    from postroad.operate.view import cannot_read, spool_directory

    directory = spool_directory(state_dir_of(config))
    try:
        os.listdir(directory)
    except FileNotFoundError:
        end(f"{directory}: there is no spool. Check whether a node has run with this state_dir")
    except OSError as error:
        end(cannot_read(directory, error))
    return directory


def _make_spool(settings: Settings) -> None:
    """The folders of a node that has never run, as the node would make them; what is there stays as it is."""
    from postroad.operate.view import spool_directory

    directory = spool_directory(settings.state_dir)
    if directory.is_dir():
        return
    try:
        owner = _owner(settings) if os.geteuid() == 0 and settings.user else None
        for folder in (settings.state_dir, directory):
            if not folder.exists():
                folder.mkdir(mode=0o750, parents=True)
                if owner is not None:
                    os.chown(folder, *owner)
    except KeyError as error:
        end(f"{directory}: the spool cannot be created: {error.args[0]}")
    except OSError as error:
        end(f"{directory}: there is no spool, and it cannot be created: {error.strerror or error}. Start the node once "
             "with this configuration, stop it, and import then")  # fmt: skip


def _owner(settings: Settings) -> tuple[int, int]:
    """User and group id; KeyError if there is no such user or group."""
    account = pwd.getpwnam(settings.user)
    return account.pw_uid, grp.getgrnam(settings.group).gr_gid if settings.group else account.pw_gid


def _need_stopped(state_dir: Path) -> None:
    from postroad.operate import control

    if control.is_running(state_dir):
        end("the node is running, and its workers own the shards: stop it first")
