"""The bundled model: its weights, recipe, card and data, and the test sets it is measured with."""

from pathlib import Path

CHECKPOINT = Path(__file__).parent / "checkpoint"
TEST_SETS = Path(__file__).parent / "test_sets"
