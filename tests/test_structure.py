"""Checks the structure of the source: no circles of imports, one class per name, small folders and files."""

import ast
import graphlib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.imports import imported

SOURCE = Path(__file__).parent.parent / "src"
MAX_MODULES = 10
MAX_LINES = 400
SAMPLER_CALLS = ("accept", "renoise", "stops")
"""The sampler's decisions, which are called from `diffusion/` only."""
CANVAS_STATES = ("state", "canvas")
"""The names of a `CanvasState`, which alone hands a soft embedding over to the next step."""


def files(source: Path) -> list[Path]:
    return sorted((source / "redraft").rglob("*.py"))


def import_circles(source: Path) -> list[str]:
    """Returns a circle of files that import each other when they are loaded, if there is one."""
    modules = {
        ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__"): path
        for path in files(source)
    }
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        names = {name for _, name in imported(path, source, at_load=True)}
        # `from a import b` loads a.b if that is a module, else a.
        targets = {name if name in modules else name.rpartition(".")[0] for name in names}
        graph[module] = targets & modules.keys() - {module}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return [" imports ".join(reversed(error.args[1]))]
    return []


def repeated_class_names(source: Path) -> list[str]:
    found: dict[str, list[str]] = defaultdict(list)
    for path in files(source):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(f"{path.relative_to(source)}:{node.lineno}")
    return [f"{name}: {', '.join(places)}" for name, places in found.items() if len(places) > 1]


def large_folders(source: Path) -> list[str]:
    counts: dict[Path, int] = defaultdict(int)
    for path in files(source):
        counts[path.parent] += path.name != "__init__.py"
    return [f"{folder.relative_to(source)}: {n} modules" for folder, n in counts.items() if n > MAX_MODULES]


def long_files(source: Path) -> list[str]:
    counts = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files(source)}
    return [f"{path.relative_to(source)}: {n} lines" for path, n in counts.items() if n > MAX_LINES]


def sampler_calls_elsewhere(source: Path) -> list[str]:
    """Returns each place outside `diffusion/` that takes a sampler's decision or hands over a readout's soft embedding.

    The model may read soft embeddings: it computes them and is conditioned on them.
    """
    found = []
    for path in files(source):
        relative = path.relative_to(source)
        if (room := relative.parts[1]) == "diffusion":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and last_name(node.func) in SAMPLER_CALLS:
                found.append(f"{relative}:{node.lineno}: {last_name(node.func)}()")
            if room != "model" and reads_soft_embedding(node):
                found.append(f"{relative}:{node.lineno}: .soft_embedding")
    return found


def reads_soft_embedding(node: ast.AST) -> bool:
    """Tells whether a node reads the `soft_embedding` of anything but a `CanvasState` or a head."""
    return (
        isinstance(node, ast.Attribute)
        and node.attr == "soft_embedding"
        and isinstance(node.ctx, ast.Load)
        and last_name(node.value) not in (*CANVAS_STATES, "head")
    )


def last_name(node: ast.expr) -> str:
    """Returns the identifier that a name or an attribute ends in, or "" for any other expression."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


CHECKS = (import_circles, repeated_class_names, large_folders, long_files, sampler_calls_elsewhere)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_source_holds_it(check: Callable[[Path], list[str]]) -> None:
    assert len(files(SOURCE)) > 100
    assert not (found := check(SOURCE)), "\n".join(found)


def tree(folder: Path, **contents: str) -> Path:
    """Writes files under folder/redraft; "model__head" is model/head.py. Every folder is a package."""
    for name, content in contents.items():
        path = (folder / "redraft" / name.replace("__", "/")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        for parent in path.relative_to(folder).parents[:-1]:
            (folder / parent / "__init__.py").touch()
    return folder


ONE_TO_OTHER = "from redraft.model import other"


@pytest.mark.parametrize(
    "back",
    [
        "import redraft.model.one",
        "from redraft.model.one import a_name",
        "from . import one",
        "from .one import a_name",
        "try:\n    pass\nexcept ImportError:\n    from . import one",
        "import sys\nif sys.platform == 'linux':\n    pass\nelse:\n    from . import one",
        "class Holder:\n    from . import one",
        "import importlib\none = importlib.import_module('redraft.model.one')",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    pass\nelse:\n    from . import one",
    ],
)
def test_a_circle_is_found(tmp_path: Path, back: str) -> None:
    tree(tmp_path, model__one=ONE_TO_OTHER, model__other=back, text="import redraft.model.one")
    (found,) = import_circles(tmp_path)
    assert set(found.split(" imports ")) == {"redraft.model.one", "redraft.model.other"}


def test_a_circle_through_a_package_is_found(tmp_path: Path) -> None:
    tree(tmp_path, model__one="from redraft.model import a_name")
    (tmp_path / "redraft" / "model" / "__init__.py").write_text("from redraft.model.one import a_name")
    assert import_circles(tmp_path)


@pytest.mark.parametrize(
    "back",
    [
        "def f():\n    from . import one",
        "async def f():\n    import redraft.model.one",
        "class Holder:\n    def f(self):\n        from . import one",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from redraft.model.one import a_name",
        "import typing\nif typing.TYPE_CHECKING:\n    from redraft.model.one import a_name",
        "import one, redraft.model.none",
    ],
)
def test_what_is_loaded_later_makes_no_circle(tmp_path: Path, back: str) -> None:
    assert import_circles(tree(tmp_path, model__one=ONE_TO_OTHER, model__other=back)) == []


def test_a_class_name_that_occurs_twice_is_found(tmp_path: Path) -> None:
    tree(tmp_path, model__one="class A: ...\nclass B: ...", text__two="def f():\n    class A: ...")
    assert repeated_class_names(tmp_path) == ["A: redraft/model/one.py:1, redraft/text/two.py:2"]


def test_a_large_folder_is_found(tmp_path: Path) -> None:
    tree(tmp_path, **{f"model__part{i}": "" for i in range(MAX_MODULES)}, model__more__part="")
    assert large_folders(tmp_path) == []
    assert large_folders(tree(tmp_path, model__last="")) == ["redraft/model: 11 modules"]


def test_a_long_file_is_found(tmp_path: Path) -> None:
    assert long_files(tree(tmp_path, model="#\n" * MAX_LINES)) == []
    assert long_files(tree(tmp_path, model="#\n" * MAX_LINES + "#")) == ["redraft/model.py: 401 lines"]


@pytest.mark.parametrize(
    ("code", "found"),
    [
        *((f"rule.{name}(entropy)", f"{name}()") for name in SAMPLER_CALLS),
        *((f"{name}(entropy)", f"{name}()") for name in SAMPLER_CALLS),
        ("settings.stopping.stops(entropy, unchanged)", "stops()"),
        ("diffusion.noise.renoise(sample, accepted, noise)", "renoise()"),
        ("signal = readout.soft_embedding", ".soft_embedding"),
        ("signal = self.run().soft_embedding", ".soft_embedding"),
    ],
)
def test_a_decision_of_the_sampler_elsewhere_is_found(tmp_path: Path, code: str, found: str) -> None:
    tree(tmp_path, engine__loop=f"def f():\n    {code}", diffusion__sampler=code)
    assert sampler_calls_elsewhere(tmp_path) == [f"redraft/engine/loop.py:2: {found}"]


@pytest.mark.parametrize(
    "code",
    [
        "state = sampler.step(state, readout)",
        "signal = state.soft_embedding[0]",
        "signal = self.sequence.canvas.soft_embedding",
        "signal = model.head.soft_embedding(logits)",
        "accepted = state.accepted",
    ],
)
def test_calling_the_sampler_is_allowed(tmp_path: Path, code: str) -> None:
    assert sampler_calls_elsewhere(tree(tmp_path, engine__loop=code)) == []
