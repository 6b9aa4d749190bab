"""`redraft.Engine`: many prompts at once, each as `Model.generate` would answer it."""

import asyncio
import dataclasses
import itertools
import os
import subprocess
import sys

import pytest

import redraft
from redraft.text import ReadPrompt
from tests.fakes.checkpoints import tiny_checkpoint

PROMPTS = ["hello", "good bye", "the quick brown fox", "2 + 2 = 4", "turn the page", "naïve café"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> redraft.Model:
    return redraft.load(tiny_checkpoint(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def expected(model) -> list[str]:
    return [model.generate(prompt, seed=3).text for prompt in PROMPTS]


@pytest.fixture
def engine(model):
    with redraft.Engine(model, admitted_requests=3) as made:
        yield made


def test_generate_many_answers_in_order_as_generate_would(engine, expected):
    results = list(engine.generate_many(iter(PROMPTS * 3), seed=3))
    assert [result.text for result in results] == expected * 3


def test_an_answer_that_is_held_has_the_letters_of_its_language(engine, model):
    # The prompt has no other apostrophe, which free answers are given back with.
    prompt = [{"role": "user", "content": "say O\u2019Brien"}]
    assert model.read(prompt).forms
    built = model.constraint(choice=["O'Brien"])
    (held,) = engine.generate_many([prompt], constraint=built)
    events = list(model.stream(prompt, schema={"enum": ["O'Brien"]}))
    drafts = [event.text for event in events if isinstance(event, redraft.Draft)]
    committed = [event.text for event in events if isinstance(event, redraft.Committed)]
    assert (held.text, held.trust.valid, model.generate(prompt, constraint=built).text) == ("O'Brien", True, "O'Brien")
    assert {"".join(committed), events[-1].text} == {'"O\'Brien"'}
    assert drafts
    assert not any("\u2019" in text for text in drafts)
    assert events[-1].parsed == "O'Brien"


def test_what_an_answer_is_held_to_is_given_as_for_generate(engine, model):
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    held = {"schema": schema, "grounded": True, "seed": 3, "max_new_tokens": 60}
    results = [*engine.generate_many(PROMPTS, **held)]
    for prompt, result in zip(PROMPTS, results, strict=True):
        alone = model.generate(prompt, **held)
        assert (result.text, result.parsed, result.spans) == (alone.text, alone.parsed, alone.spans)
        assert prompt[slice(*result.spans["a"])] == result.parsed["a"]

    async def submit() -> redraft.Result:
        return await (await engine.submit(PROMPTS[0], **held))

    assert asyncio.run(submit()).spans == results[0].spans
    (refused,) = engine.generate_many(PROMPTS[:1], grounded=True)
    assert "a grounded answer needs a schema" in str(refused.error)


def test_a_prompt_that_fails_does_not_lose_the_rest(engine, expected):
    first, second, third = engine.generate_many([PROMPTS[0], "word " * 400, PROMPTS[2]], seed=3)
    assert isinstance(second, redraft.Failure)
    assert "the context holds 256" in str(second.error)
    assert [first.text, third.text] == [expected[0], expected[2]]


def test_prompts_are_taken_only_as_far_ahead_as_the_engine_works(engine):
    taken = []

    def prompts():
        for i in range(1000):
            taken.append(i)
            yield "hello"

    results = engine.generate_many(prompts(), seed=3)
    next(results)
    assert len(taken) < 30
    results.close()


def test_prompts_that_are_none_fail_in_their_place_and_are_not_taken_without_end(engine, expected):
    first, second, third, last = engine.generate_many([PROMPTS[0], None, 5, PROMPTS[1]], seed=3)
    assert isinstance(second, redraft.Failure)
    assert isinstance(third, redraft.Failure)
    assert [first.text, last.text] == expected[:2]
    results = engine.generate_many(itertools.repeat(" "), seed=3)
    assert all(isinstance(next(results), redraft.Failure) for _ in range(500))


def test_a_queue_that_others_fill_is_waited_for(model, expected):
    with redraft.Engine(model, admitted_requests=1, queued_requests=1) as engine:
        results = [engine.generate_many(PROMPTS, seed=3) for _ in range(2)]
        told = [[next(one).text for one in results] for _ in PROMPTS]
    assert told == [[text, text] for text in expected]


def test_two_may_wait_for_one_answer(engine, expected):
    async def run():
        answer = await engine.submit(PROMPTS[0], seed=3)
        return await asyncio.wait_for(asyncio.gather(*[_text(answer) for _ in range(3)]), 60)

    async def _text(answer):
        return (await answer).text

    assert asyncio.run(run()) == expected[:1] * 3


def test_a_program_that_ends_while_its_engine_works_ends_well(tmp_path):
    program = """
import sys, redraft
engine = redraft.Engine(redraft.load(sys.argv[1]))
answers = engine.generate_many(["hello"] * 64, max_new_tokens=8, steps=60, confidence_threshold=1e-9)
next(answers)
"""
    # Beside other work, workers that spin at every barrier would take minutes.
    done = subprocess.run(
        [sys.executable, "-c", program, tiny_checkpoint(tmp_path)],
        env=os.environ | {"OMP_WAIT_POLICY": "passive"},
        capture_output=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_submitting_streaming_and_cancelling(engine, model, expected):
    async def run():
        answers = [await engine.submit(prompt, seed=3) for prompt in PROMPTS]
        texts = [(await answer).text for answer in answers]
        assert (await answers[0]).text == texts[0]
        # What was iterated over in part can be waited for.
        async for _ in answers[-1]:
            raise AssertionError("all events were told")
        begun = await engine.submit(PROMPTS[0], seed=3, drafts=True)
        async for event in begun:
            assert isinstance(event, redraft.Draft)
            break
        assert (await begun).text == texts[0]
        whole = await answers[0]
        stop = whole.token_ids[2]
        cut = await (await engine.submit(PROMPTS[0], seed=3, stop_ids=[stop]))
        assert cut.token_ids == whole.token_ids[: whole.token_ids.index(stop)]
        assert cut.finish_reason == "stop"
        events = [event async for event in engine.stream(PROMPTS[0], seed=3)]
        gone = await engine.submit("hello", seed=3, max_new_tokens=200, steps=500, confidence_threshold=1e-9)
        assert engine.cancel(gone)
        with pytest.raises(redraft.CancelledAnswer):
            await gone
        assert not engine.cancel(gone)
        return texts, events

    texts, events = asyncio.run(run())
    assert texts == expected
    assert isinstance(events[-1], redraft.Result)
    assert "".join(event.text for event in events if isinstance(event, redraft.Committed)) == expected[0]
    drafts = [event for event in events if isinstance(event, redraft.Draft)]
    assert [draft.text for draft in drafts] == [
        event.text for event in model.stream(PROMPTS[0], seed=3) if isinstance(event, redraft.Draft)
    ]


def test_leaving_a_stream_early_cancels_its_answer(engine):
    async def run():
        stream = engine.stream("hello", steps=500, confidence_threshold=1e-9)
        async for _ in stream:
            break
        await stream.aclose()

    asyncio.run(run())
    result = next(engine.generate_many(["hello"], seed=3))
    assert isinstance(result, redraft.Result)
    assert engine.shutdown() == redraft.Shutdown(finished=(), cancelled=())


def test_token_by_token_many_at_once_and_streamed(engine, model):
    expected = [model.generate_autoregressive(prompt).text for prompt in PROMPTS]
    assert [result.text for result in engine.generate_many(PROMPTS, mode="autoregressive")] == expected

    async def run():
        answer = await engine.submit(PROMPTS[0], mode="autoregressive")
        return await answer, [event async for event in engine.stream(PROMPTS[1], mode="autoregressive")]

    result, events = asyncio.run(run())
    assert result.text == expected[0]
    assert not any(isinstance(event, redraft.Draft) for event in events)
    assert "".join(event.text for event in events if isinstance(event, redraft.Committed)) == expected[1]
    assert events[-1].text == expected[1]


def test_bad_input(engine, model):
    with pytest.raises(ValueError, match="mode is 'greedy', must be diffusion or autoregressive"):
        engine.generate_many(["hello"], mode="greedy")
    with pytest.raises(ValueError, match="mode is 'scoring', must be diffusion or autoregressive"):
        asyncio.run(engine.submit("hello", mode="scoring"))
    with pytest.raises(ValueError, match="takes a list of prompts"):
        engine.generate_many("hello")
    with pytest.raises(ValueError, match="steps is 0"):
        engine.generate_many(["hello"], steps=0)
    with pytest.raises(ValueError, match="unknown limit 'slots'; known: forward_tokens"):
        redraft.Engine(model, slots=3)
    with pytest.raises(ValueError, match="forward_tokens is 7, must be at least the model's canvas of 8"):
        redraft.Engine(model, forward_tokens=7)
    with pytest.raises(ValueError, match="the prompt is empty"):
        asyncio.run(engine.submit(" "))
    engine.shutdown()
    with pytest.raises(RuntimeError, match="shut down"):
        asyncio.run(engine.submit("hello"))


def test_a_name_is_loaded(tmp_path):
    with redraft.Engine(str(tiny_checkpoint(tmp_path))) as engine:
        assert isinstance(engine.model, redraft.Model)
    with pytest.raises(ValueError, match=r"the model is None, must be one that redraft\.load made, or a name"):
        redraft.Engine(None)


def test_prompts_of_another_shape_fail_in_their_place(engine, expected):
    bad = [{"role": "user", "content": "hello"}, [{"role": "user"}], b"hello", [5], {}]
    first, *failed, last = engine.generate_many([PROMPTS[0], *bad, PROMPTS[1]], seed=3)
    assert [type(one.error) for one in failed] == [ValueError] * len(bad)
    assert [first.text, last.text] == expected[:2]
    for prompts in ({"role": "user", "content": "hello"}, b"hello", 5, None):
        with pytest.raises(ValueError, match="generate_many takes a list of prompts, got"):
            engine.generate_many(prompts)


LONG = {"seed": 3, "max_new_tokens": 200, "steps": 4000, "confidence_threshold": 1e-9}


async def until_idle(engine) -> None:
    while engine.state.running or engine.state.waiting:
        await asyncio.sleep(0.01)


def test_a_task_that_gives_up_waiting_ends_the_engines_work(engine):
    async def run():
        answer = await engine.submit("hello", **LONG)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(answer, 0.05)
        await asyncio.wait_for(until_idle(engine), 30)
        with pytest.raises(redraft.CancelledAnswer):
            await answer

        async def read() -> None:
            async for _ in await engine.submit("hello", drafts=True, **LONG):
                pass

        task = asyncio.create_task(read())
        while not engine.state.running:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait_for(until_idle(engine), 30)

    asyncio.run(run())


def test_one_of_two_that_gives_up_waiting_leaves_the_other_its_answer(engine, expected):
    async def run():
        answer = await engine.submit(PROMPTS[0], seed=3)
        first, second = (asyncio.ensure_future(answer) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        return (await asyncio.wait_for(second, 60)).text

    assert asyncio.run(run()) == expected[0]


def test_the_card_says_how_answers_are_written(tmp_path):
    model = redraft.load(tiny_checkpoint(tmp_path))
    model.card = dataclasses.replace(model.card, mode="verified")
    start, limits = redraft.CanvasStart(tokens=(3,), pinned=frozenset({0})), {"max_new_tokens": 12, "seed": 1}
    expected = {mode: model.generate("hello", mode=mode, **limits).token_ids for mode in ("verified", "diffusion")}
    assert len(set(expected.values())) == 2
    confident = model.generate("hello", mode="diffusion", stopping="every_position_confident", **limits)
    *_, streamed = model.stream("hello", **limits)
    assert model.generate("hello", **limits).token_ids == streamed.token_ids == expected["verified"]
    assert model.generate("hello", mode="diffusion", **limits).token_ids == expected["diffusion"]
    assert model.generate("hello", start=start, **limits).token_ids[0] == 3
    assert model.generate("hello", stopping="every_position_confident", **limits).token_ids == confident.token_ids
    with redraft.Engine(model) as engine:
        (many,) = engine.generate_many(["hello"], **limits)
        assert many.token_ids == expected["verified"]
        assert engine.request(ReadPrompt([1]), stopping="every_position_confident").mode == "diffusion"
        assert engine.request(ReadPrompt([1]), start=start).mode == "diffusion"
        assert [engine.request(ReadPrompt([1]), mode=mode).mode for mode in (None, "auto")] == ["verified", "auto"]
    model.card = dataclasses.replace(model.card, mode="fast")
    with pytest.raises(ValueError, match="has mode 'fast', must be one of diffusion, autoregressive, verified, auto"):
        model.generate("hello")


@pytest.mark.parametrize("drafts", [False, True])
def test_verified_answers_are_the_autoregressive_ones(model, drafts):
    async def ask(engine):
        answer = await engine.submit("hello", mode="verified", drafts=drafts, max_new_tokens=12)
        return [event async for event in answer]

    with redraft.Engine(model) as engine:
        events = asyncio.run(ask(engine))
        for name in ("stopping", "entropy_limit"):
            with pytest.raises(ValueError, match=f"{name} has no effect in mode 'verified'; leave it out"):
                engine.request(ReadPrompt([1]), mode="verified", **{name: 1})
        sampled = {"temperature": 1.5, "seed": 3, "max_new_tokens": 12}
        (drawn,) = engine.generate_many(["hello"], mode="verified", **sampled)
        assert drawn.token_ids == model.generate("hello", mode="verified", **sampled).token_ids
        assert drawn.token_ids == model.generate_autoregressive("hello", **sampled).token_ids
    expected = model.generate_autoregressive("hello", max_new_tokens=12)
    result = events[-1]
    assert (result.text, result.token_ids, result.warnings) == (expected.text, expected.token_ids, expected.warnings)
    assert any(isinstance(event, redraft.Draft) for event in events) == drafts
    found = result.to_json()["verification"]
    assert found["rounds"] == result.generation.verification.rounds > 0


def test_events_at_once_are_those_told_one_by_one(engine):
    async def events(**given) -> list:
        request = engine.request(engine.model.read("hello"), seed=3, mode="autoregressive", max_new_tokens=6)
        queue = engine.events(request, **given)
        first = await queue.get()
        found = [first, *([] if given else [await queue.get() for _ in range(7)])]
        found += [queue.get_nowait() for _ in range(queue.qsize())]
        return [type(one).__name__ for one in found]

    told, at_once = asyncio.run(events()), asyncio.run(events(at_once=True))
    assert told == at_once
    assert (told[0], told[-1], len(told)) == ("Admitted", "Finished", 8)


def test_events_at_once_of_a_request_that_is_cancelled_end_too(engine):
    async def last() -> object:
        request = engine.request(engine.model.read("hello"), max_new_tokens=400, mode="autoregressive")
        queue = engine.events(request, at_once=True)
        engine.cancel(request)
        events = [await queue.get()]
        events += [queue.get_nowait() for _ in range(queue.qsize())]
        return events[-1]

    assert isinstance(asyncio.run(last()), redraft.engine.Cancelled)


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"regex": "("}, "a group that is not closed"),
        ({"regex": "a", "choice": ["b"]}, "regex and choice are given"),
        ({"schema": {"type": "nothing"}}, "nothing"),
        ({"choice": "ab"}, "must be a list of texts"),
    ],
)
def test_generate_many_refuses_at_once_what_no_answer_can_be_held_to(engine, held, said):
    def none_read() -> None:
        raise AssertionError("no prompt is read before")
        yield

    with pytest.raises(ValueError, match=said):
        engine.generate_many(none_read(), **held)


def test_what_a_prompt_asks_for_is_refused_in_its_place(engine):
    (found,) = engine.generate_many(["hello"], schema_from_prompt=True)
    assert isinstance(found, redraft.Failure)
