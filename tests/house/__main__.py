"""`make house`: sizes, circles, names that stand twice and names that nobody uses, for whoever looks."""

from __future__ import annotations

import ast
import statistics

from tests.house import source

_LONGEST = 15


def main() -> None:
    """Prints all of it. Nothing here is a limit: the tests of this folder hold what must hold."""
    lines = {name: len(path.read_text("utf-8").splitlines()) for name, path in source.modules().items()}
    print(f"{len(lines)} modules, {sum(lines.values())} lines, median {statistics.median(lines.values()):.0f}\n")
    _print("longest modules", [f"{count:5} {name}" for count, name in _most(lines)])
    _print("largest classes (lines, methods)", [f"{count:5} {name}" for count, name in _most(_class_lines())])
    _print("longest functions", [f"{count:5} {name}" for count, name in _most(_function_lines())])
    _print("files that import each other in a circle", [" ".join(each) for each in source.circles()])
    twice = {name: found for name, found in source.classes().items() if len(found) > 1}
    _print("public classes of one name", [f"{name}: {', '.join(found)}" for name, found in sorted(twice.items())])
    _print("names that stand once only", source.unused())


def _print(title: str, rows: list[str]) -> None:
    print(f"{title}:" if rows else f"{title}: none")
    for row in rows:
        print(f"  {row}")
    print()


def _most(counts: dict[str, int]) -> list[tuple[int, str]]:
    return sorted(((count, name) for name, count in counts.items()), reverse=True)[:_LONGEST]


def _class_lines() -> dict[str, int]:
    found = {}
    for name, path in source.modules().items():
        for node in source.tree(path).body:
            if isinstance(node, ast.ClassDef):
                methods = sum(isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) for each in node.body)
                found[f"{name}.{node.name} ({methods})"] = (node.end_lineno or 0) - node.lineno + 1
    return found


def _function_lines() -> dict[str, int]:
    return {
        f"{name}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for name, path in source.modules().items()
        for node in ast.walk(source.tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


if __name__ == "__main__":
    main()
