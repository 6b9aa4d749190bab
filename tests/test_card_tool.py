"""Measured figures come into the model card by a tool, where it says so."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("card_tool", ROOT / "tools" / "card.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_figures_stand_in_their_part_of_the_page(tool):
    groups = {"a": {"exact": 1.0}, "b": {"exact": 0.25}}
    run = {"task": "wide seen", "examples": 8, "exact": 0.625, "groups": groups, "steps_per_canvas": 4.5}
    run["fields_right"] = 0.75
    runs = [[run | {"settings": settings}] for settings in ({"seed": 0}, {"mode": "verified"})]
    page = "before\n<!-- scores -->\nold\n<!-- end of scores -->\nbehind"
    made = tool.replaced(page, "scores", tool.scores(runs))
    assert made.startswith("before\n<!-- scores -->\n")
    assert "| cases | exact, diffusion | exact, verified | fields right, verified | steps per canvas |" in made
    assert "| **wide seen** | 8 | 62.5 % | 62.5 % | 75.0 % | 4.5 |\n| a | | 100.0 % | 100.0 % |  | |\n" in made
    assert "old" not in made
    assert tool.replaced(made, "scores", ["x"]) == tool.replaced(page, "scores", ["x"])
    with pytest.raises(ValueError, match="must have the part 'trust' once, it has it 0 times"):
        tool.replaced(page, "trust", [])


def test_the_shipped_card_has_the_part_of_trust(tool):
    page = (ROOT / "docs" / "model-card.md").read_text()
    assert "| calibration error |" in page
    assert tool.replaced(page, "trust", ["x"]) != page
