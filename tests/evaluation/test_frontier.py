"""The frontier: who beats whom, what is chosen, and that measuring is not done twice."""

import random

import pytest

from redraft.evaluation.frontier import OBJECTIVES, Point, choose, draw, grid, pareto, sweep


def point(quality: float, speed: float, forward: float, steps: float = 1.0) -> Point:
    return Point({}, quality, speed, forward, steps)


def test_grid_combines_everything():
    found = grid({"steps": [1, 2], "schedule": [{"t_min": 0.1, "t_max": 0.2}, {"t_min": 0.3, "t_max": 0.3}]})
    assert len(found) == 4
    assert {"steps": 2, "t_min": 0.1, "t_max": 0.2} in found


def test_nothing_beats_what_is_on_the_frontier_and_something_beats_all_else():
    rng = random.Random(0)
    for _ in range(50):
        points = [point(rng.randint(0, 4), rng.randint(0, 4), rng.randint(0, 4)) for _ in range(12)]
        best = pareto(points)

        def dominates(one: Point, other: Point) -> bool:
            gains = [getattr(one, name) - getattr(other, name) for name in OBJECTIVES]
            return min(gains) >= 0 and max(gains) > 0

        for one in points:
            assert (one in best) is not any(dominates(other, one) for other in points)
        assert [one.quality for one in best] == sorted((one.quality for one in best), reverse=True)


def test_the_chosen_point_is_the_one_with_the_fewest_steps_near_the_best():
    points = [point(0.90, 1, 1, steps=20), point(0.895, 1, 1, steps=9), point(0.80, 1, 1, steps=3)]
    assert choose(points, 0.0) is points[0]
    assert choose(points, 0.01) is points[1]
    assert choose(points, 0.1) is points[2]


def test_a_sweep_goes_on_where_it_stood(tmp_path):
    asked: list[dict] = []

    def measure(settings: dict) -> Point:
        asked.append(settings)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return Point(settings, 0.5, settings["steps"], 1.0, 1.0)

    choices, done = grid({"steps": [1, 2, 3, 4]}), tmp_path / "points.jsonl"
    with pytest.raises(KeyboardInterrupt):
        list(sweep(choices, measure, done))
    found = list(sweep(choices, measure, done))
    assert [one.tokens_per_second for one in found] == [1, 2, 3, 4]
    assert [one["steps"] for one in asked] == [1, 2, 3, 3, 4]
    with done.open("a") as file:
        file.write('{"settings": {"st')
    more = [*choices, {"steps": 5}]
    assert list(sweep(more, measure, done))[:-1] == found
    assert [one["steps"] for one in asked] == [1, 2, 3, 3, 4, 5]
    assert len(list(sweep(more, lambda _: pytest.fail("measured again"), done))) == 5
    with pytest.raises(ValueError, match=r"holds points of \{\}, not of \{'model': 'b'\}; choose another"):
        list(sweep(choices, measure, done, {"model": "b"}))
    done.write_text("[]\n")
    with pytest.raises(ValueError, match="line 1 is not a measured point"):
        list(sweep(choices, measure, done))


def test_the_drawing_names_its_axes():
    points = [point(0.9, 10, 2, steps=8), point(0.8, 20, 3, steps=4), point(0.7, 15, 2, steps=9)]
    drawn = draw(points, pareto(points), points[0], "extract")
    assert drawn.count("<svg") == 1
    for label in ("extract", "tokens per forward", "tokens per second", "frontier", "chosen"):
        assert f"<!-- {label} -->" in drawn
