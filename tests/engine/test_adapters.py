"""Requests with adapters, whatever else is in the batch, against models into which the adapters are merged."""

import random

import pytest

from redraft.diffusion.settings import SamplerSettings
from redraft.engine import Admitted, EngineCore, Event, Failed, Finished, Limits, Request
from redraft.generation.autoregressive import generate_autoregressive
from redraft.generation.loop import generate
from redraft.model.preparation import hold_adapters, prepare
from redraft.model.transformer import Transformer
from tests.fakes.adapters import held_adapter, merged, random_adapter
from tests.fakes.models import tiny_config, tiny_model

CONFIG = tiny_config(max_context=160)
MATRICES = {f"a{i}": random_adapter(CONFIG, i, rank=2 + i) for i in range(3)}
SYSTEM = tuple(range(2, 22))


@pytest.fixture
def model() -> Transformer:
    model = prepare(tiny_model(max_context=160), "float32")
    hold_adapters(model).add({name: held_adapter(one) for name, one in MATRICES.items()})
    return model


def requests(count: int, mode: str = "diffusion") -> list[Request]:
    rng = random.Random(0)
    made = []
    for i in range(count):
        prompt = (*(SYSTEM if rng.random() < 0.6 else ()), *(rng.randrange(61) for _ in range(rng.choice((1, 5, 17)))))
        settings = SamplerSettings(
            max_new_tokens=16, steps=6, seed=rng.randrange(2**32), temperature=rng.choice((0, 1))
        )
        settings = settings.replace(temperature=0.0) if mode == "verified" else settings
        adapter = rng.choice((None, *MATRICES))
        made.append(Request(id=f"r{i}", prompt=prompt, settings=settings, adapter=adapter, mode=mode))
    return made


def run(core: EngineCore) -> list[Event]:
    events: list[Event] = []
    while core.held:
        events += core.step()
    return events


def answers(model: Transformer, asked: list[Request], **limits: int) -> dict[str, tuple[int, ...]]:
    core = EngineCore(model, Limits(**limits))
    for request in asked:
        core.submit(request)
    events = run(core)
    assert not [event for event in events if isinstance(event, Failed)]
    return {event.id: event.generation.token_ids for event in events if isinstance(event, Finished)}


def merged_models() -> dict[str | None, Transformer]:
    found: dict[str | None, Transformer] = {None: prepare(tiny_model(max_context=160), "float32")}
    for name, matrices in MATRICES.items():
        model = tiny_model(max_context=160)
        model.load_state_dict(merged(model.state_dict(), matrices))
        found[name] = prepare(model, "float32")
    return found


def test_answers_are_the_merged_models(model: Transformer) -> None:
    """Token for token, alone and in any batch, with prefixes that several adapters share."""
    asked, others = requests(24), merged_models()
    expected = {r.id: generate(others[r.adapter], r.prompt, r.settings).token_ids for r in asked}
    base = {r.id: generate(others[None], r.prompt, r.settings).token_ids for r in asked}
    assert sum(expected[r.id] != base[r.id] for r in asked if r.adapter) > 10
    for request in asked[:6]:
        alone = generate(model, request.prompt, request.settings, adapter=request.adapter)
        assert alone.token_ids == expected[request.id]
    assert answers(model, asked) == expected
    assert answers(model, asked, forward_tokens=40, admitted_requests=5, prefix_tokens=0) == expected


@pytest.mark.parametrize("mode", ["autoregressive", "verified"])
def test_token_by_token(model: Transformer, mode: str) -> None:
    asked, others = requests(8, mode), merged_models()
    expected = {r.id: generate_autoregressive(others[r.adapter], r.prompt, r.settings).token_ids for r in asked}
    alone = asked[3]
    found = generate_autoregressive(model, alone.prompt, alone.settings, adapter=alone.adapter)
    assert found.token_ids == expected[alone.id]
    assert answers(model, asked) == expected


def test_prefixes_belong_to_the_content_of_an_adapter(model: Transformer) -> None:
    bank, core = hold_adapters(model), EngineCore(model, Limits())
    bank.add({"same": held_adapter(MATRICES["a0"])})
    settings = SamplerSettings(max_new_tokens=8, steps=2, seed=1)

    def cached(adapter: str | None) -> int:
        core.submit(Request(id="r", prompt=SYSTEM, settings=settings, adapter=adapter))
        return next(event.cached_tokens for event in run(core) if isinstance(event, Admitted))

    assert [cached(name) for name in (None, "a0", "a0", "a1", "same", None)] == [0, 0, 20, 0, 20, 20]
    bank.remove("a0")
    bank.add({"a0": held_adapter(MATRICES["a2"])})
    assert cached("a0") == 0


def test_an_adapter_that_goes_ends_its_own_requests_alone(model: Transformer) -> None:
    asked = requests(8)
    expected = answers(model, asked)
    core = EngineCore(model, Limits())
    for request in asked:
        core.submit(request)
    events = core.step()
    hold_adapters(model).remove("a1")
    # One of that name that comes later is another.
    hold_adapters(model).add({"a1": held_adapter(MATRICES["a0"])})
    events += run(core)
    failed = {event.id: str(event.error) for event in events if isinstance(event, Failed)}
    assert failed.keys() == {r.id for r in asked if r.adapter == "a1"}
    assert all("unloaded before its answer was finished" in error for error in failed.values())
    found = {event.id: event.generation.token_ids for event in events if isinstance(event, Finished)}
    assert found == {id: tokens for id, tokens in expected.items() if id not in failed}


def test_an_unknown_adapter_is_refused(model: Transformer) -> None:
    request = Request(id="r", prompt=SYSTEM, settings=SamplerSettings(), adapter="mails")
    with pytest.raises(ValueError, match="there is no adapter 'mails': there are 'a0', 'a1', 'a2'"):
        EngineCore(model, Limits()).submit(request)
    with pytest.raises(ValueError, match="there is no adapter 'mails': none is loaded"):
        EngineCore(prepare(tiny_model(), "float32"), Limits()).submit(request)
