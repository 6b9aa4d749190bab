"""The tool that makes a checkpoint the bundled model takes the card of the recipe that trained it."""

import importlib.util
from pathlib import Path

import pytest

from redraft.bundled import card
from redraft.text.trust.calibration import TRUST_FILE
from redraft.weights.card import Card, read_card, write_card
from redraft.weights.checkpoint import Checkpoint
from tests.weights.support import write_tiny

TOOL = Path(__file__).parent.parent / "tools" / "bundle.py"


@pytest.fixture
def tool(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("bundle_tool", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "BUNDLED_FOLDER", tmp_path / "bundled")
    return module


@pytest.mark.parametrize("expected", [card.EXTRACTION, card.BUNDLED, card.WIDE], ids=lambda one: one.recipe)
def test_the_card_is_that_of_the_recipe(tool, tmp_path, expected):
    write_tiny(tmp_path / "run")
    write_card(tmp_path / "run", Card(purpose="as it was when training began", recipe=expected.recipe))
    write_tiny(tmp_path / "bundled")
    (tmp_path / "bundled" / TRUST_FILE).write_text("{}")
    tool.bundle(tmp_path / "run")
    assert read_card(tmp_path / "bundled") == expected
    assert Checkpoint.open(tmp_path / "bundled").config == Checkpoint.open(tmp_path / "run").config
    assert not (tmp_path / "bundled" / TRUST_FILE).exists()


def test_a_checkpoint_of_nobodys_recipe_is_refused(tool, tmp_path):
    write_tiny(tmp_path / "run")
    with pytest.raises(ValueError, match="was trained by the recipe '', must be one of extract, bundled, wide"):
        tool.bundle(tmp_path / "run")
    assert not (tmp_path / "bundled").exists()
