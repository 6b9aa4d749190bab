"""Sides measured in turn."""

import pytest

from redraft.benchmark.timing import alternate


@pytest.mark.parametrize(("options", "warm"), [({}, "ab"), ({"warm_up": []}, "")])
def test_sides_are_warmed_up_and_then_go_forwards_and_backwards(options, warm):
    called = []

    def side(name):
        called.append(name)
        return len(called)

    found = alternate(2, lambda: side("a"), lambda: side("b"), **options)
    assert "".join(called) == warm + "baab"
    start = len(warm)
    assert found == [[start + 2, start + 3], [start + 1, start + 4]]
