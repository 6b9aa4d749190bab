"""Checks that no room imports what docs/architecture.md forbids it.

Every import counts: at the top, in a function, under TYPE_CHECKING, relative, and by a literal name. What an imported
room imports in turn is that room's business.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.imports import imported

SOURCE = Path(__file__).parent.parent / "src"
FACADE = "the façade"
ROOMS = frozenset(
    {
        *("text", "diffusion", "constraints", "model", "weights", "generation", "engine", "batch", "training"),
        *("evaluation", "benchmark", "client", "server", "bundled", "utils", "cli"),
    }
)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a room must not import: some rooms, some third-party packages, and with `only` all the others."""

    rooms: frozenset[str]
    packages: frozenset[str] = frozenset()
    only: frozenset[str] | None = None


def forbid(*rooms: str, packages: tuple[str, ...] = (), only: tuple[str, ...] | None = None) -> Rule:
    """Makes the rule of a room. No room may import `cli`, or transformers, which is only a peer and a test oracle."""
    return Rule(
        rooms=frozenset({*rooms, "cli"}),
        packages=frozenset({*packages, "transformers"}),
        only=None if only is None else frozenset(only),
    )


EVERY_ROOM = (*ROOMS, FACADE)
FACADE_FILES = (
    *("__init__.py", "answers.py", "api.py", "asked.py", "async_engine.py"),
    *("decisions.py", "filling.py", "held.py", "loading.py", "parts.py"),
)
PEERS = "benchmark/peers.py"
"""The one file that may import transformers, which it measures."""
ENTRY = "__main__.py"
"""The one file that imports `cli`: `python -m redraft` is the command."""
# The façade imports these rooms, so they must not import it.
RULES = {
    "text": forbid(*(ROOMS - {"utils"}), FACADE, packages=("torch",)),
    "diffusion": forbid(*EVERY_ROOM, only=("torch",)),
    "constraints": forbid(*(ROOMS - {"utils"}), FACADE, only=("numpy",)),
    "model": forbid(*EVERY_ROOM),
    "weights": forbid("diffusion", "generation", "engine", "server", FACADE),
    "generation": forbid("engine", "server", "training", FACADE),
    "engine": forbid("server", "text", "training", FACADE),
    "batch": forbid("server", "training"),
    "training": forbid("engine", "server"),
    "evaluation": forbid("training"),
    "benchmark": forbid("training"),
    "client": forbid(*(ROOMS - {"text", "utils"}), packages=("torch",)),
    "server": forbid("model", "diffusion", packages=("torch",)),
    "bundled": forbid("server", "engine"),
    "utils": forbid(*EVERY_ROOM, only=()),
    "cli": forbid(),
    FACADE: forbid(),
}


def room_of(name: str) -> str:
    """Returns the room of a dotted name: that of `redraft.text.template` is text, that of `redraft.load` the façade."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else FACADE


def is_module(name: str, source: Path) -> bool:
    """Tells whether a dotted name is that of a file or folder of the tree."""
    path = source.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def broken_rule(room: str, name: str, source: Path) -> str | None:
    """Returns the reason why `room` must not import `name`, or None if it may."""
    rule = RULES[room]
    top = name.split(".")[0]
    if top != "redraft":
        if rule.only is not None and top not in rule.only and top not in sys.stdlib_module_names:
            return f"{room} must not import {top}, only {', '.join((*sorted(rule.only), 'the standard library'))}"
        return f"{room} must not import {top}" if top in rule.packages else None
    target = room_of(name)
    if target == room:
        return None
    if target in rule.rooms:
        return f"{room} must not import {target}"
    if room == "benchmark" and target == "engine":
        inside = ".".join(name.split(".")[:3])
        if inside != "redraft.engine" and is_module(inside, source):
            return f"benchmark must not import the engine's internals ({inside}): use what redraft.engine offers"
    return None


def broken_rules(source: Path) -> list[str]:
    """Returns a line for each forbidden import under `source`/redraft, and for each file that is in no room."""
    found = []
    for path in sorted((source / "redraft").rglob("*.py")):
        relative = path.relative_to(source)
        room = relative.parts[1].removesuffix(".py")
        if relative.parts[1] == ENTRY:
            continue
        if relative.parts[1] in FACADE_FILES:
            room = FACADE
        elif room not in ROOMS:
            found.append(f"{relative}: {room} is not a room; put the file into one")
            continue
        for line, name in imported(path, source):
            if relative.parts[1:] == tuple(PEERS.split("/")) and name.split(".")[0] == "transformers":
                continue
            if reason := broken_rule(room, name, source):
                found.append(f"{relative}:{line}: {reason}")
    return found


def test_no_file_imports_what_its_room_must_not():
    assert (SOURCE / "redraft").is_dir()
    assert not (broken := broken_rules(SOURCE)), "\n".join(broken)


@pytest.mark.parametrize(
    ("path", "code", "reason"),
    [
        ("text/template.py", "import torch", "text must not import torch"),
        ("text/template.py", "import torch.nn as nn", "text must not import torch"),
        ("text.py", "from redraft.model import Transformer", "text must not import model"),
        ("model/layers.py", "from redraft import weights", "model must not import weights"),
        ("model/layers.py", "from ..weights import names", "model must not import weights"),
        ("model/layers.py", "from .. import diffusion", "model must not import diffusion"),
        ("model/layers.py", "from redraft import load", "model must not import the façade"),
        ("model/layers.py", "def f():\n    import redraft.text.template", "model must not import text"),
        ("model/fast/experts.py", "from ...text import x", "model must not import text"),
        ("model/__init__.py", "from ..text import x", "model must not import text"),
        ("model/layers.py", "from transformers import AutoModel", "model must not import transformers"),
        ("benchmark/speed.py", "import transformers", "benchmark must not import transformers"),
        ("benchmark/peers.py", "import transformers, redraft.training", "benchmark must not import training"),
        ("engine/benchmark/peers.py", "import transformers", "engine must not import transformers"),
        ("weights/load.py", "import redraft.generation", "weights must not import generation"),
        ("diffusion/noise.py", "import numpy", "diffusion must not import numpy, only torch, the standard library"),
        ("diffusion/noise.py", "import redraft.model.batch", "diffusion must not import model"),
        ("generation/loop.py", "from redraft.training import objective", "generation must not import training"),
        ("engine/loop.py", "import importlib\nimportlib.import_module('redraft.text')", "engine must not import text"),
        ("engine/loop.py", "import_module('..text', __package__)", "engine must not import text"),
        ("utils/files.py", "import torch", "utils must not import torch, only the standard library"),
        ("constraints/regex.py", "from redraft.text import TextTokenizer", "constraints must not import text"),
        ("constraints/tokens.py", "import torch", "constraints must not import torch, only numpy"),
        ("batch/jobs.py", "import redraft.server.app", "batch must not import server"),
        ("server/routes.py", "__import__('torch')", "server must not import torch"),
        ("server/routes.py", "from redraft.diffusion import noise", "server must not import diffusion"),
        ("training/loop.py", "import redraft.engine", "training must not import engine"),
        ("training/loop.py", "if TYPE_CHECKING:\n    import redraft.server", "training must not import server"),
        ("evaluation/tasks.py", "import redraft.training.data", "evaluation must not import training"),
        ("benchmark/steps.py", "from redraft.engine import scheduler", "engine's internals (redraft.engine.scheduler)"),
        ("__init__.py", "import redraft.cli", "the façade must not import cli"),
        ("training/loop.py", "from redraft.cli.main import main", "training must not import cli"),
        ("helpers.py", "", "helpers is not a room"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, path: str, code: str, reason: str):
    for name in ("engine/__init__.py", "engine/scheduler.py", path):
        (tmp_path / "redraft" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "redraft" / name).touch()
    (tmp_path / "redraft" / path).write_text(code)
    (found,) = broken_rules(tmp_path)
    assert found.startswith(str(Path("redraft") / path))
    assert reason in found


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("text/template.py", "import jinja2.sandbox\nfrom redraft.text import markers\nfrom . import markers"),
        ("model/layers.py", "import math, torch\nfrom .batch import Segment"),
        ("diffusion/noise.py", "import enum\nimport torch\nfrom redraft.diffusion.randomness import Counter"),
        ("generation/loop.py", "import redraft.model, redraft.diffusion\nfrom redraft import text"),
        ("benchmark/speed.py", "from redraft.engine import Engine\nfrom redraft import load"),
        ("benchmark/peers.py", "import importlib\nimportlib.import_module('transformers.models')"),
        ("cli/main.py", "import redraft\nfrom redraft.cli import options\nfrom redraft import training, server"),
        ("__init__.py", "from redraft.generation import generate\nfrom .text import Tokenizer"),
    ],
)
def test_an_allowed_import_is_not(tmp_path: Path, path: str, code: str):
    (tmp_path / "redraft" / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "redraft" / path).write_text(code)
    assert broken_rules(tmp_path) == []
