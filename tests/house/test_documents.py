"""Every document names only what is there: files, links, modules, parts of modules, tests.

A document may name, each checked here:
- a Markdown link to a file, and to a heading in it;
- in backticks a file with its folder (`docs/tls.md`, `queue/agenda.py`: from the root, `src/postroad` or `tests/unit`);
- in backticks a part of a file, `queue/queue.py::Queue.add`: a class, function, method or constant;
- in backticks a module (`postroad.accounts.function`) and `python -m module`;
- in the tables of docs/rfc.md, modules and tests in the short form that the page explains;
- in backticks a setting, `queue.slow_s` or `slow_s`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from postroad.config.schema import tables
from postroad.config.settings import Settings

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/postroad"
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "packaging").rglob("*.md"))
)
INDEX = "docs/README.md"
PAGES = [each for each in DOCUMENTS if each.startswith("docs/") and not each.startswith("docs/decisions/")]

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`]+)`")
_FILE = re.compile(r"(?:[\w.-]+/)+[\w.*-]+\.(?:py|md|toml|conf|service|lock|in|timer|socket)")
_PART = re.compile(r"((?:[\w.-]+/)*[\w-]+\.py)::([\w.]+)(?:\(\))?")
_MODULE = re.compile(r"(?:postroad|tests|bench)(?:\.\w+)+")
_RUN = re.compile(r"python3? -m ((?:postroad|tests|bench)[\w.]*)")
_MADE = re.compile(r"^(?:/|tls/|var/|NN|spool/|state/|STATE_DIR)")  # files of an installation, not of the checkout


@cache
def text(document: str) -> str:
    return (ROOT / document).read_text("utf-8")


def _prose(document: str) -> str:
    """The document without its blocks of code, which show what an operator has and not what the checkout has."""
    fenced = re.sub(r"^```.*?^```$", "", text(document), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^ {4}.*$", "", fenced, flags=re.MULTILINE)


def _places(name: str) -> Iterator[Path]:
    for folder in (ROOT, SOURCE, ROOT / "docs", ROOT / "tests/unit"):
        yield from folder.glob(name)


@cache
def _parts(path: Path) -> frozenset[str]:
    """What can be named of a module: `name`, `Class`, `Class.name`."""
    found: set[str] = set()

    def add(body: list[ast.stmt], before: str) -> None:
        for node in body:
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    found.add(before + name)
                case ast.ClassDef(name=name, body=inner):
                    found.add(before + name)
                    add(inner, f"{before}{name}.")
                case ast.Assign(targets=targets):
                    found.update(before + target.id for target in targets if isinstance(target, ast.Name))
                case ast.AnnAssign(target=ast.Name(id=name)):
                    found.add(before + name)
                case _:
                    pass

    add(ast.parse(path.read_text("utf-8")).body, "")
    return frozenset(found)


def _heading(line: str) -> str:
    """The anchor that readers of Markdown give a heading."""
    return re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower()).replace(" ", "-")


def _anchors(path: Path) -> set[str]:
    return {_heading(line) for line in path.read_text("utf-8").splitlines() if line.startswith("#")}


def _is_module(name: str) -> bool:
    """A module, or a name in one."""
    folder = ROOT / "src" if name.startswith("postroad") else ROOT
    words = name.split(".")
    for count in range(len(words), 0, -1):
        path = folder.joinpath(*words[:count])
        rest = ".".join(words[count:])
        if path.with_suffix(".py").is_file():
            return not rest or rest in _parts(path.with_suffix(".py"))
        if (path / "__init__.py").is_file():
            return not rest or rest in _parts(path / "__init__.py")
    return False


def _untrue(document: str) -> Iterator[str]:
    whole = text(document)
    folder = (ROOT / document).parent
    for target in _LINK.findall(whole):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (folder / name).resolve() if name else ROOT / document
        if not path.exists():
            yield f"the link {target}: there is no such file"
        elif anchor and anchor not in _anchors(path):
            yield f"the link {target}: there is no such heading"
    for code in (" ".join(each.split()) for each in _CODE.findall(_prose(document))):
        if (part := _PART.fullmatch(code)) is not None:
            paths = list(_places(part[1]))
            if not any(part[2] in _parts(path) for path in paths):
                yield f"`{code}` is not there"
        elif _FILE.fullmatch(code) and not _MADE.match(code) and not any(_places(code)):
            yield f"`{code}`: there is no such file"
        elif _MODULE.fullmatch(code) and not code.endswith((".toml", ".service", ".py")) and not _is_module(code):
            yield f"`{code}`: there is no such module"
    for name in _RUN.findall(whole):
        if not _is_module(name.rstrip(".")):
            yield f"python -m {name}: there is no such module"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_names_is_there(document: str) -> None:
    assert list(_untrue(document)) == []


def test_the_hardening_page_names_many_tests() -> None:
    assert len(set(re.findall(r"`tests/[a-z_/]+\.py::test_\w+`", text("docs/hardening.md")))) > 100


def test_the_flow_names_the_code_at_each_step() -> None:
    """The page would be of no use without: a step that names no code cannot be followed."""
    named = {part[1] for part in _PART.finditer(text("docs/flow.md"))}
    assert len(named) > 25
    parts = {part for path in SOURCE.rglob("*.py") for part in _parts(path)}
    short = set(re.findall(r"`([A-Z]\w+\.\w+)`", text("docs/flow.md")))  # of the file that was named just before
    assert short - parts == set()
    rooms = {name.split("/")[0] for name in named}
    assert rooms >= {"receive", "check", "store", "route", "queue", "deliver", "report", "node", "config", "protocol"}


def test_the_index_names_every_page() -> None:
    linked = {target.partition("#")[0] for target in _LINK.findall(text(INDEX))}
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")} - {"README.md"}
    assert pages - linked == set()
    assert "docs/README.md" in {target.partition("#")[0] for target in _LINK.findall(text("README.md"))}


def test_each_recipe_is_run_by_a_test() -> None:
    """`test_recipe_NAME.py` plays docs/recipes/NAME.md (tests/peers/harness/recipe.py)."""
    pages = {path.stem for path in (ROOT / "docs/recipes").glob("*.md")}
    tests = {path.stem: path for path in (ROOT / "tests").glob("*/test_recipe_*.py")}
    assert set(tests) == {f"test_recipe_{page.replace('-', '_')}" for page in pages}
    for page in pages:
        assert f'Page("{page}")' in tests[f"test_recipe_{page.replace('-', '_')}"].read_text("utf-8")


# -- docs/rfc.md: tables with a column of modules and one of tests, in a short form


def _rows() -> Iterator[tuple[str, str]]:
    """The columns Where and Test of each row."""
    for line in text("docs/rfc.md").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("|") and len(cells) == 5 and cells[3].strip("| ") not in ("Where", "---"):
            yield cells[3].strip("| "), cells[4].strip("| ")


def _is_test(name: str) -> bool:
    kind, _, rest = name.rpartition(":")
    if kind == "dialog":
        return any((ROOT / "tests/dialogs").rglob(f"{rest}.*"))
    if kind == "peer":
        return (ROOT / f"tests/peers/test_{rest}.py").is_file()
    if "/" in name:
        path, short = name.rsplit("/", 1)
        file = f"{path}/test_{short.removeprefix('test_')}.py"
        return any((ROOT / folder / file).is_file() for folder in ("tests", "tests/unit"))
    return any((ROOT / "tests/unit").rglob(f"test_{name}.py"))


def _untrue_rows() -> Iterator[str]:
    for where, tests in _rows():
        for module in filter(None, where.split(", ")):
            if not ((SOURCE / f"{module}.py").is_file() or (SOURCE / module).is_dir()):
                yield f"there is no module {module}"
        for test in filter(None, tests.split(", ")):
            if not _is_test(test):
                yield f"there is no test {test}"


def test_the_ledger_of_rfcs_names_what_is_there() -> None:
    assert len(list(_rows())) > 100
    assert list(_untrue_rows()) == []


# -- settings


SETTINGS = frozenset(".".join((*table.path, key.name)) for table in tables(Settings) for key in table.keys)
_SECTIONS = {name.split(".")[0] for name in SETTINGS if "." in name}
_KEYS = {name.rsplit(".", 1)[-1] for name in SETTINGS}
_OF_OTHERS = {  # words with an underscore that are no settings of ours
    "allow_mail_to_commands", "allow_mail_to_files", "allow_untrusted_routing", "base_dir", "default_privs",
    "command_expansion_filter",
    "envelope_recipient", "envelope_sender", "header_recipient", "header_sender", "home_mailbox", "in_flow_delay",
    "check_policy_service", "integrity_check", "lmtp_admins", "local_header_rewrite_clients", "login_trusted_networks",
    "max_age", "owner_request_special", "quick_check", "sendmail_path", "smtp_line_length_limit",
    "reject_unknown_client_hostname", "skip_addresses",
    "smtpd_authorized_xclient_hosts", "smtpd_milters", "submission_host", "tls_details", "tls_policy",
}  # fmt: skip


def _untrue_settings(document: str) -> Iterator[str]:
    for code in _CODE.findall(_prose(document)):
        name = code.split(" = ")[0]
        if re.fullmatch(r"[a-z_]+(?:\.[a-z_0-9]+)+", name) and name.split(".")[0] in _SECTIONS:
            if name not in SETTINGS:
                yield name
        elif re.fullmatch(r"[a-z]+(?:_[a-z0-9]+)+", name) and name not in _KEYS | _OF_OTHERS:
            yield name


@pytest.mark.parametrize("document", PAGES)
def test_the_settings_that_a_page_names_are_there(document: str) -> None:
    assert list(_untrue_settings(document)) == []


# -- the other way: code that names a document


def _named_in_code() -> Iterator[tuple[str, str]]:
    files = [path for folder in ("src", "tests", "bench", "packaging") for path in (ROOT / folder).rglob("*.py")]
    for path in (*files, ROOT / "Makefile", *(ROOT / "packaging").rglob("*.service")):
        if path != Path(__file__):
            for name in re.findall(r"[\w./-]*\w\.md\b", path.read_text("utf-8")):
                yield path.relative_to(ROOT).as_posix(), name


def test_the_documents_that_code_names_are_there() -> None:
    untrue = {(file, name) for file, name in _named_in_code() if not any(_places(name)) and not (ROOT / name).exists()}
    assert untrue == set()
