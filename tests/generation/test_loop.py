"""The loop of one request against the algorithm written out without a cache that lives on."""

import itertools

import pytest
import torch

from redraft.diffusion.randomness import Counter, Purpose
from redraft.diffusion.settings import SamplerSettings
from redraft.generation.loop import denoise, denoising_steps, generate
from redraft.generation.result import DenoisingStep, Generation
from redraft.model.batch import FlatBatch, Pass
from redraft.model.cache import KVCache
from redraft.utils.canvas import cut_canvas
from tests.fakes.models import tiny_model

PROMPT = (3, 4, 5, 6, 7, 8, 9)
CANVAS = 8
# Loose enough that canvases end early, at different steps.
SETTINGS = SamplerSettings.of(max_new_tokens=3 * CANVAS, steps=12, confidence_threshold=0.1, seed=5)


@pytest.fixture(scope="module")
def model():
    return tiny_model(eos_ids=())


def run(model, settings, prompt=PROMPT) -> tuple[list[DenoisingStep], Generation]:
    steps, generator = [], denoising_steps(model, prompt, settings)
    while True:
        try:
            steps.append(next(generator))
        except StopIteration as end:
            return steps, end.value


def filled_cache(model, tokens) -> KVCache:
    batch = FlatBatch.single(torch.tensor(tokens), 0, Pass.ENCODER)
    return model.run(batch, [KVCache(model.config)]).caches[0]


def sure_positions(entropy: list[float], bound: float) -> list[bool]:
    order = sorted(range(len(entropy)), key=lambda i: (entropy[i], i))
    accepted, spent = [False] * len(entropy), 0.0
    for i in order:
        accepted[i] = spent <= bound
        spent += entropy[i]
    return accepted


@torch.no_grad()
def assert_follows_the_algorithm(model, prompt, settings, steps, length=CANVAS):
    """Recomputes every step from the prompt and the canvases before it, as algorithm.md has it."""
    config, embedding, flat = model.config, model.embed_tokens.weight, settings.flat()
    written = list(prompt)
    for index, group in itertools.groupby(steps, key=lambda step: step.canvas):
        place = Counter(settings.seed, settings.index, index)
        canvas = place.random_tokens(length, config.vocab_size, Purpose.INITIAL_CANVAS)
        signal, last_draft, left = None, None, settings.steps
        recorded = list(group)
        for step in recorded:
            assert step.step == left
            left -= 1
            scale = settings.temperature or 1.0
            fraction = step.step / settings.steps
            temperature = scale * (flat["t_min"] + (flat["t_max"] - flat["t_min"]) * fraction)
            assert step.temperature == pytest.approx(temperature)

            cache = filled_cache(model, written)
            batch = FlatBatch.single(canvas, len(written), Pass.DENOISER, soft_embedding=signal)
            logits = model.head.logits(model.run(batch, [cache]).hidden) / temperature
            probs = logits.softmax(-1)
            entropy = torch.distributions.Categorical(logits=logits).entropy()
            torch.testing.assert_close(step.entropy, entropy, atol=2e-5, rtol=1e-4)
            assert torch.equal(step.draft, logits.argmax(-1))

            at_step = Counter(settings.seed, settings.index, index, step.step)
            uniform = at_step.uniforms(length, Purpose.SAMPLE)
            sample = (probs.double().cumsum(-1) <= uniform[:, None]).sum(-1)
            if settings.temperature == 0:
                sample = logits.argmax(-1)
            assert step.accepted.tolist() == sure_positions(step.entropy.tolist(), flat["entropy_bound"])
            noise = at_step.random_tokens(length, config.vocab_size, Purpose.RENOISE)
            canvas = torch.where(step.accepted, sample, noise)
            assert torch.equal(step.renoised, canvas)

            stable = last_draft is not None and torch.equal(step.draft, last_draft)
            stops = stable and float(step.entropy.mean()) < flat["confidence_threshold"]
            assert step.finished == (stops or step.step == 1)
            last_draft = step.draft
            signal = probs @ embedding * config.hidden_size**0.5
        assert [step.finished for step in recorded] == [False] * (len(recorded) - 1) + [True]
        written += recorded[-1].draft.tolist()


@pytest.mark.parametrize("changes", [{}, {"temperature": 0.0}, {"temperature": 1.5, "index": 2, "entropy_bound": 0.5}])
def test_every_step_is_the_algorithms(model, changes):
    settings = SETTINGS.replace(**changes)
    steps, answer = run(model, settings)
    assert_follows_the_algorithm(model, PROMPT, settings, steps)
    # Or else this says nothing of accepting, renoising and stopping.
    accepted = torch.cat([step.accepted for step in steps]).float().mean()
    assert 0.1 < accepted < 0.95
    assert min(answer.steps_per_canvas) < settings.steps


def test_temperature_zero_keeps_the_scheduled_acceptance(model):
    settings = SETTINGS.replace(temperature=0.0, max_new_tokens=CANVAS)
    steps, _ = run(model, settings)
    # The argmax is kept where accepted, and the rest is noised although the sampling is greedy.
    for step in steps:
        assert torch.equal(step.renoised[step.accepted], step.draft[step.accepted])
    assert not steps[0].accepted.all()
    # The first step reads the same canvas at both, so everything but the sample is the same.
    warm = run(model, settings.replace(temperature=1.0))[0][0]
    assert steps[0].temperature == warm.temperature == settings.schedule.t_max
    assert torch.equal(steps[0].entropy, warm.entropy)
    assert torch.equal(steps[0].accepted, warm.accepted)
    rest = ~warm.accepted
    assert torch.equal(steps[0].renoised[rest], warm.renoised[rest])


def test_samples_are_not_always_the_argmax(model):
    steps, _ = run(model, SETTINGS.replace(t_min=2.0, t_max=2.0, entropy_bound=100.0))
    assert any((step.renoised != step.draft)[step.accepted].any() for step in steps)


def test_an_answer_is_its_drafts(model):
    steps, answer = run(model, SETTINGS)
    last = [step for step in steps if step.finished]
    assert answer.canvases == tuple(tuple(step.draft.tolist()) for step in last)
    assert answer.token_ids == tuple(itertools.chain(*answer.canvases))
    assert answer.steps_per_canvas == tuple(sum(s.canvas == i for s in steps) for i in range(3))
    assert answer.tokens_per_forward == len(answer.token_ids) / len(steps)
    assert answer.finish_reason == "length"
    assert all(step.entropy.dtype == torch.float32 and step.accepted.dtype == torch.bool for step in steps)


def test_a_canvas_that_ran_out_of_steps_is_its_argmax(model):
    steps, answer = run(model, SETTINGS.replace(steps=1))
    assert answer.canvases == tuple(tuple(step.draft.tolist()) for step in steps)
    assert not any(step.accepted.all() for step in steps)  # or else the noise of the rest could not show


def answer_of(model, **changes) -> Generation:
    return generate(model, PROMPT, SETTINGS.replace(**changes))


def test_generate_is_the_steps_run_to_their_end(model):
    by_steps = run(model, SETTINGS)[1]
    at_once = generate(model, PROMPT, SETTINGS)
    assert (at_once.token_ids, at_once.steps_per_canvas) == (by_steps.token_ids, by_steps.steps_per_canvas)


def test_same_seed_same_answer(model):
    assert answer_of(model).canvases == answer_of(model).canvases
    assert answer_of(model).seed == 5


@pytest.mark.parametrize("other", [{"seed": 6}, {"seed": 2**63 - 1}, {"index": 1}])
def test_another_seed_or_index_gives_another_answer(model, other):
    assert answer_of(model, **other).canvases != answer_of(model).canvases


def test_a_drawn_seed_is_reported_and_reproduces(model):
    drawn, again = answer_of(model, seed=None), answer_of(model, seed=None)
    assert drawn.seed != again.seed
    assert 0 <= drawn.seed < 2**63
    assert answer_of(model, seed=drawn.seed).canvases == drawn.canvases


def test_the_prompt_matters(model):
    assert generate(model, PROMPT[::-1], SETTINGS).canvases != answer_of(model).canvases


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_no_canvas_takes_more_than_its_steps(model, steps):
    answer = answer_of(model, steps=steps, confidence_threshold=1e-9)
    assert answer.steps_per_canvas == (steps,) * 3


def test_a_sure_first_guess_stops_at_once(model):
    assert answer_of(model, stability_threshold=0, confidence_threshold=100.0).steps_per_canvas == (1, 1, 1)
    every = answer_of(model, stopping="every_position_confident", entropy_limit=100.0)
    assert every.steps_per_canvas == (1, 1, 1)


def test_linear_quota_accepts_by_its_plan(model):
    steps, _ = run(model, SETTINGS.replace(acceptance="linear_quota", steps=4, confidence_threshold=1e-9))
    assert [int(step.accepted.sum()) for step in steps] == [2, 4, 6, 8] * 3


def test_equal_temperatures_run(model):
    steps, _ = run(model, SETTINGS.replace(t_min=0.5, t_max=0.5))
    assert {step.temperature for step in steps} == {0.5}


# --- where an answer ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_new_tokens", "canvases"), [(1, 1), (7, 1), (8, 1), (9, 2), (16, 2), (17, 3), (23, 3), (24, 3)]
)
def test_cut_at_max_new_tokens(model, max_new_tokens, canvases):
    whole = answer_of(model)
    cut = answer_of(model, max_new_tokens=max_new_tokens)
    assert cut.token_ids == whole.token_ids[:max_new_tokens]
    assert cut.canvases == whole.canvases[:canvases]
    assert cut.finish_reason == "length"
    assert cut.tokens_per_forward == max_new_tokens / sum(cut.steps_per_canvas)


@pytest.mark.parametrize("length", [1, 5, 13])
def test_canvas_length_of_the_request(model, length):
    settings = SETTINGS.replace(canvas_length=length, max_new_tokens=2 * length)
    steps, answer = run(model, settings)
    assert [len(canvas) for canvas in answer.canvases] == [length, length]
    assert_follows_the_algorithm(model, PROMPT, settings, steps, length)


def first_places(tokens) -> dict[int, int]:
    """Token → where it stands first."""
    places: dict[int, int] = {}
    for place, token in enumerate(tokens):
        places.setdefault(token, place)
    return places


@pytest.fixture(scope="module")
def endless(model):
    return answer_of(model)


@pytest.mark.parametrize("canvas", [0, 1, 2])
def test_eos_ends_the_answer_wherever_it_stands(endless, canvas):
    # What is EOS does not change what is written, so any token of the endless answer can be made one.
    eos, place = next(
        (token, place) for token, place in first_places(endless.token_ids).items() if place // CANVAS == canvas
    )
    answer = answer_of(tiny_model(eos_ids=(eos,)))
    assert answer.token_ids == endless.token_ids[:place]
    assert answer.canvases == endless.canvases[: canvas + 1]
    assert answer.finish_reason == "stop"
    assert answer.tokens_per_forward == (place + 1) / sum(endless.steps_per_canvas[: canvas + 1])


def test_eos_at_the_first_position_is_an_empty_answer(endless):
    answer = answer_of(tiny_model(eos_ids=(60, endless.token_ids[0])))
    assert answer.token_ids == ()
    assert answer.finish_reason == "stop"
    assert answer.tokens_per_forward == 1 / endless.steps_per_canvas[0]


@pytest.mark.parametrize(("room", "reason"), [(-1, "length"), (0, "stop"), (1, "stop")])
def test_eos_at_the_limit(endless, room, reason):
    # The EOS itself takes no room: an answer of max_new_tokens tokens that is followed by EOS has stopped.
    eos, place = next((token, place) for token, place in first_places(endless.token_ids).items() if 9 < place < 15)
    answer = answer_of(tiny_model(eos_ids=(eos,)), max_new_tokens=place + room)
    assert answer.finish_reason == reason
    assert answer.token_ids == endless.token_ids[: min(place, place + room)]


@pytest.mark.parametrize(
    ("canvas", "room", "added", "reason"),
    [
        ([5, 6, 7, 8], 9, [5, 6, 7, 8], None),
        ([5, 6, 7, 8], 5, [5, 6, 7, 8], None),
        ([5, 6, 7, 8], 4, [5, 6, 7, 8], "length"),
        ([5, 6, 7, 8], 3, [5, 6, 7], "length"),
        ([1, 6, 7, 8], 4, [], "stop"),
        ([5, 6, 7, 1], 4, [5, 6, 7], "stop"),
        ([5, 6, 7, 1], 3, [5, 6, 7], "stop"),
        ([5, 6, 7, 1], 2, [5, 6], "length"),
        ([5, 2, 1, 8], 4, [5], "stop"),
        ([1, 6, 7, 8], 1, [], "stop"),
    ],
)
def test_cut_canvas(canvas, room, added, reason):
    assert cut_canvas(canvas, (1, 2), room) == (added, reason)


# --- the context --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("spare", "canvases"), [(0, 1), (7, 1), (8, 2), (15, 2), (16, 3)])
def test_running_out_of_context(spare, canvases):
    model = tiny_model(eos_ids=(), max_context=len(PROMPT) + CANVAS + spare)
    highest = []
    model.register_forward_pre_hook(lambda _, args: highest.append(int(args[0].positions.max())))
    answer = generate(model, PROMPT, SETTINGS.replace(max_new_tokens=1000))
    assert len(answer.canvases) == canvases
    assert len(answer.token_ids) == canvases * CANVAS
    assert answer.finish_reason == "length"
    assert max(highest) == len(PROMPT) + canvases * CANVAS - 1 < model.config.max_context


def test_a_prompt_that_leaves_no_room(model):
    fits = model.config.max_context - CANVAS
    assert len(generate(model, [3] * fits, SETTINGS.replace(steps=1)).canvases) == 1
    with pytest.raises(ValueError, match=rf"the prompt has {fits + 1} tokens and a canvas 8; the context holds 64"):
        generate(model, [3] * (fits + 1), SETTINGS)
    with pytest.raises(ValueError, match=r"a canvas 58; the context holds 64: shorten the prompt or the canvas"):
        generate(model, PROMPT, SETTINGS.replace(canvas_length=58))


def test_an_empty_prompt(model):
    with pytest.raises(ValueError, match="the prompt is empty"):
        generate(model, [], SETTINGS)


@pytest.mark.parametrize("bad", [-1, 61, 2**40])
def test_ids_outside_the_vocabulary(model, bad):
    with pytest.raises(ValueError, match=rf"token ids \[{bad}\] of the prompt lie outside the vocabulary of 61"):
        generate(model, [3, bad, 4], SETTINGS)


def test_a_refused_prompt_costs_no_forward():
    model = tiny_model()
    model.register_forward_pre_hook(lambda *_: pytest.fail("the model ran"))
    with pytest.raises(ValueError, match="empty"):
        generate(model, [], SETTINGS)


# --- what can go wrong on the way ---------------------------------------------------------------------------------


def test_weights_that_break_on_the_way():
    model = tiny_model(eos_ids=())
    steps = denoising_steps(model, PROMPT, SETTINGS)
    first = next(steps)
    next(steps)
    with torch.no_grad():
        model.norm.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match=rf"not finite in canvas 0, step {first.step - 2}: .*float32"):
        next(steps)
    with pytest.raises(StopIteration):
        next(steps)


def test_weights_that_were_broken_from_the_start():
    model = tiny_model()
    with torch.no_grad():
        model.layers[1].mlp.down_proj.weight[0, 0] = float("inf")
    with pytest.raises(ValueError, match="not finite in canvas 0, step 12"):
        generate(model, PROMPT, SETTINGS)


def test_closing_early_is_clean(model, endless):
    steps = denoising_steps(model, PROMPT, SETTINGS)
    next(steps)
    next(steps)
    steps.close()
    with pytest.raises(StopIteration):
        next(steps)
    assert answer_of(model).canvases == endless.canvases


def test_two_answers_step_by_step_do_not_disturb_each_other(model):
    one, other = SETTINGS, SETTINGS.replace(seed=6)
    interleaved: list[list[list[int]]] = [[], []]
    for a, b in itertools.zip_longest(denoising_steps(model, PROMPT, one), denoising_steps(model, PROMPT, other)):
        for drafts, step in zip(interleaved, (a, b), strict=True):
            if step is not None:
                drafts.append(step.draft.tolist())
    assert interleaved == [[s.draft.tolist() for s in run(model, settings)[0]] for settings in (one, other)]


def test_the_callers_own_gradients_stay_on(model):
    steps = denoising_steps(model, PROMPT, SETTINGS)
    for _ in range(2):
        next(steps)
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
    steps.close()
    assert not torch.is_inference_mode_enabled()


def test_torchs_generator_is_left_alone(model):
    before = torch.random.get_rng_state()
    answer_of(model)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_seconds_leave_out_what_the_caller_does_between_steps(model, monkeypatch):
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    answers = []

    def steps():
        answers.append((yield from denoising_steps(model, PROMPT, SETTINGS)))

    for _ in steps():
        now += 100.0
    assert (answers[0].seconds, answers[0].tokens_per_second) == (0.0, 0.0)


def test_seconds_belong_to_their_phase(monkeypatch):
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    spy = tiny_model(eos_ids=())

    def forward(_module, args):
        nonlocal now
        segment = args[0].segments[0]
        now += 1000.0 if segment.kind is Pass.DENOISER else (1.0 if segment.position == 0 else 30.0)

    spy.register_forward_pre_hook(forward)
    answer = generate(spy, PROMPT, SETTINGS)
    assert answer.prefill_seconds == 1.0
    assert answer.commit_seconds == 60.0  # the last canvas of an answer is not committed
    assert answer.denoising_seconds == 1000.0 * sum(answer.steps_per_canvas)
    assert answer.tokens_per_second == len(answer.token_ids) / answer.seconds


# --- the cache ----------------------------------------------------------------------------------------------------


def contents(model, cache) -> list[torch.Tensor]:
    """What each layer would read."""
    return [tensor for layer in range(model.config.num_layers) for tensor in cache.content(layer)]


@torch.no_grad()
def test_denoising_leaves_the_cache_as_it_was(model):
    cache = filled_cache(model, PROMPT)
    before, size = [tensor.clone() for tensor in contents(model, cache)], cache.num_bytes
    assert size > 0
    for step in denoise(model, cache, SETTINGS, Counter(0), CANVAS):
        assert step.canvas == 0
        assert (cache.num_bytes, cache.length) == (size, len(PROMPT))
    after = contents(model, cache)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@torch.no_grad()
@pytest.mark.parametrize("chunks", [(1,), (3,), (4,), (5,), (20,), (1, 1, 1, 1, 1, 1), (3, 8, 8), (8, 1)])
def test_sliding_caches_hold_what_can_still_be_seen(model, chunks):
    cache, tokens = KVCache(model.config), torch.arange(3, 3 + sum(chunks))
    at = 0
    for chunk in chunks:
        batch = FlatBatch.single(tokens[at : at + chunk], at, Pass.ENCODER)
        (cache,) = model.run(batch, [cache]).caches
        at += chunk
        window = model.config.sliding_window - 1
        held = [tensor.shape[0] for tensor in contents(model, cache)[::2]]
        assert held == [min(at, window), min(at, window), at]
        assert cache.length == at
    bytes_held = sum(tensor.numel() * 4 for tensor in contents(model, cache))
    assert cache.num_bytes == bytes_held
    # In chunks or at once, the same is kept.
    for a, b in zip(contents(model, cache), contents(model, filled_cache(model, tokens.tolist())), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)
