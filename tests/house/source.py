"""The package as it is written: its files, what each imports, and the public classes that each makes.

Read with `ast`, never imported. An import under TYPE_CHECKING and one within a function count like any other: a reader
has to follow them all the same.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGE: Final = ROOT / "src" / "postroad"


@cache
def modules() -> dict[str, Path]:
    """Each module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def imports(name: str, *, at_once: bool = False) -> set[str]:
    """The modules of the package that a module imports. `at_once`: only those that are imported with it."""
    found: set[str] = set()
    for node in _nodes(tree(modules()[name]), at_once=at_once):
        if isinstance(node, ast.Import):
            found.update(each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            found.update(f"{node.module}.{each.name}" for each in node.names)
            found.add(node.module)
    return {each for each in found if each in modules() and each != name and modules()[each].name != "__init__.py"}


def _nodes(node: ast.AST, *, at_once: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if at_once and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if at_once and isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _nodes(child, at_once=at_once)


def circles() -> list[list[str]]:
    """Groups of modules each of which leads to all the others by imports (Tarjan's strongly connected components)."""
    graph = {name: sorted(imports(name)) for name in modules()}
    number: dict[str, int] = {}
    least: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        number[name] = least[name] = len(number)
        stack.append(name)
        for other in graph[name]:
            if other not in number:
                visit(other)
                least[name] = min(least[name], least[other])
            elif other in stack:
                least[name] = min(least[name], number[other])
        if least[name] == number[name]:
            at = stack.index(name)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for name in graph:
        if name not in number:
            visit(name)
    return found


def classes() -> dict[str, list[str]]:
    """The modules that make a public class of each name."""
    found: dict[str, list[str]] = {}
    for name, path in modules().items():
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(name)
    return found


def requirements() -> set[str]:
    """The top-level names of the libraries that the package imports, its own and the standard library's left out."""
    import sys

    found: set[str] = set()
    for path in modules().values():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Import):
                found.update(each.name.partition(".")[0] for each in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"postroad"}


def unused() -> list[str]:
    """Functions, classes and constants of modules, and methods, whose name stands nowhere else in package and tests.

    A hint only: a name can be used in another way (by a decorator, by a library).
    """
    import re

    text = "\n".join(
        path.read_text("utf-8") for folder in ("src", "tests", "bench") for path in (ROOT / folder).rglob("*.py")
    )
    counts: dict[str, int] = {}
    for word in re.findall(r"[A-Za-z_]\w*", text):
        counts[word] = counts.get(word, 0) + 1
    found = []
    for name, path in modules().items():
        for node in ast.walk(tree(path)):
            is_made = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            if is_made and counts.get(node.name, 0) == 1 and not node.name.startswith("__"):
                found.append(f"{name}:{node.lineno} {node.name}")
    return found
