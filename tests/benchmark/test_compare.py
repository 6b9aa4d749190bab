"""Comparing: both sides do the same work, and the peer's answers are an oracle's; speed itself is not asserted."""

import importlib

import pytest
import torch

from redraft.benchmark.compare import EngineSteps, compare, random_prompts
from redraft.benchmark.peers import TransformersSteps
from redraft.benchmark.timing import Spread, describe_machine, ratio
from tests.fakes.models import tiny_model

# transformers' generate has torch load its compiler, which uses what torch itself calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")


class Given:
    """A side that takes the seconds it is given, a list for each round."""

    def __init__(self, *rounds: list[float]) -> None:
        self._rounds = list(rounds)

    def seconds(self) -> list[float]:
        return self._rounds.pop(0)


def test_a_ratio_is_of_the_medians_of_one_round():
    ours = Given([9.0], [1.0, 2.0, 30.0], [4.0], [1.0])
    found = compare(ours, Given([9.0], [8.0], [4.0, 4.0], [5.0]), rounds=3)
    assert (found.ratio.low, found.ratio.median, found.ratio.high) == (2.5, 4.0, 4.5)
    assert (found.ours.median, found.theirs.median, found.ratio.count) == (2.0, 5.0, 3)


def test_spread():
    assert Spread.of([3.0]) == Spread(3.0, 3.0, 3.0, 1)
    assert Spread.of([1.0, 2.0, 3.0, 4.0, 5.0]).scaled(10).to_json() == {
        "median": 30.0, "low": 20.0, "high": 40.0, "count": 5,
    }  # fmt: skip
    assert ratio([2.0, 9.0], [1.0, 3.0]).median == 2.5
    assert {"processor", "threads", "torch", "redraft", "load"} <= describe_machine().keys()


def test_both_sides_time_every_step_but_the_first():
    model = tiny_model(eos_ids=())
    prompts = random_prompts(model.config.vocab_size, 3, 5)
    assert len(EngineSteps(model, prompts, 4).seconds()) == 3
    peer = TransformersSteps(model, prompts, 4)
    assert len(peer.seconds()) == 3
    assert all(second > 0 for second in peer.seconds())
    assert peer.facts["dtype"] == "float32"
    assert {"version", "attention", "experts"} <= peer.facts.keys()


@pytest.mark.parametrize(("requests", "context"), [(1, 40), (2, 7), (9, 30)])
def test_all_requests_are_in_every_forward(requests, context):
    model = tiny_model(eos_ids=())
    steps = EngineSteps(model, random_prompts(model.config.vocab_size, requests, context), 4)
    tokens = requests * (context + model.config.canvas_length)
    assert (steps.limits.admitted_tokens, steps.limits.admitted_requests) == (tokens, requests)
    assert len(steps.seconds()) == 3


def test_the_peer_has_our_weights_and_says_nothing(capfd):
    model = tiny_model(seed=3)
    tokens = random_prompts(model.config.vocab_size, 1, 6)
    peer = TransformersSteps(model, tokens, 2)
    peer.seconds()
    told = capfd.readouterr()
    assert (told.out, told.err) == ("", "")
    theirs = dict(peer.model.named_parameters())
    for name, ours in model.named_parameters():
        assert any(torch.equal(ours, value) for key, value in theirs.items() if key.endswith(name)), name


def test_without_transformers_there_is_a_way_out(monkeypatch):
    import_module = importlib.import_module

    def missing(name, *more):
        if name.startswith("transformers"):
            raise ModuleNotFoundError(f"No module named {name!r}", name="transformers")
        return import_module(name, *more)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ValueError, match=r"needs transformers 5.23: pip install -e '.\[compare\]' in the checkout"):
        TransformersSteps(tiny_model(), random_prompts(61, 1, 5), 2)
