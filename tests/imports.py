"""The imports of a source file, read from its syntax tree."""

import ast
from collections.abc import Iterator
from pathlib import Path


def imported(path: Path, source: Path, *, at_load: bool = False) -> Iterator[tuple[int, str]]:
    """Yields the (line, dotted name) of each import of a file under `source`.

    `from a import b` gives a.b, which may be a module or a name in one. `importlib.import_module` and `__import__` of a
    literal name count. With `at_load`, imports in functions and under TYPE_CHECKING are left out.
    """
    folder = path.relative_to(source).parent.parts
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    for node in _run_at_load(tree) if at_load else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*folder[: len(folder) - node.level + 1]] if node.level else []
            module = ".".join(base + ([node.module] if node.module else []))
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in {"import_module", "__import__"}:
            # A relative name is resolved as if its package were the file's own, which is what `__package__` gives.
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    name = argument.value.lstrip(".")
                    level = len(argument.value) - len(name)
                    yield node.lineno, ".".join([*folder[: len(folder) - level + 1], name] if level else [name])


def _run_at_load(node: ast.AST) -> Iterator[ast.AST]:
    """Yields the nodes below `node` that run when its module is loaded."""
    yield node
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return
    children = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        children = iter(node.orelse)
    for child in children:
        yield from _run_at_load(child)
