"""The objective: what it supervises, where its gradients flow, and that training sees what generation sees."""

import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from redraft.diffusion.randomness import Counter, Purpose
from redraft.diffusion.settings import SamplerSettings
from redraft.model.batch import FlatBatch, Pass
from redraft.model.cache import KVCache
from redraft.model.head import OutputHead
from redraft.training.attention import CanvasAttention, PrefixAttention
from redraft.training.data.examples import Example, TrainingBatch, make_batch
from redraft.training.objective import denoise, losses
from tests.fakes.models import tiny_model

CANVAS, VOCAB = 8, 61


def examples(*sizes: tuple[int, int]) -> list[Example]:
    """Random examples of the given (prompt, answer) sizes, each answer ended by EOS."""
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, VOCAB, (count,), generator=generator).tolist())

    return [Example(draw(prompt), (*draw(answer - 1), 1)) for prompt, answer in sizes]


# Prompts shorter and longer than the window of 5; seed 14 chooses second and third canvases among them.
SIZES = ((1, 5), (12, 20), (3, 24), (9, 8), (4, 17), (17, 1))


def make(
    *,
    conditioned: list[bool] | bool = False,
    unrolled: list[int] | int = 0,
    unrolling_steps: int = 1,
    sizes=SIZES,
    seed: int = 14,
    canvases: int = 1,
) -> TrainingBatch:
    batch = make_batch(
        examples(*sizes), CANVAS, VOCAB, Counter(seed), canvases_per_example=canvases, unrolling_steps=unrolling_steps
    )
    flags = torch.tensor([conditioned] * len(sizes) if isinstance(conditioned, bool) else conditioned)
    further = torch.tensor([unrolled] * len(sizes) if isinstance(unrolled, int) else unrolled)
    places = tuple(dataclasses.replace(at, step=max(at.step, unrolling_steps)) for at in batch.places)
    return dataclasses.replace(batch, conditioned=flags, unrolled=torch.where(flags, further, 0), places=places)


def test_the_batch_of_these_tests_has_what_is_hard():
    batch = make()
    prompts = torch.tensor([prompt for prompt, _ in SIZES])
    assert set(((batch.canvas_starts - prompts[:, None]) // CANVAS).flatten().tolist()) == {0, 1, 2}
    window = tiny_model().config.sliding_window
    assert batch.canvas_starts.min() < window < batch.canvas_starts.max()
    assert not torch.equal(batch.noised, batch.clean)


def encode(model, batch: TrainingBatch) -> tuple[torch.Tensor, PrefixAttention]:
    """Training's encoder pass, as `losses` makes it."""
    prefix = PrefixAttention(model.config, batch.lengths)
    positions = torch.cat([torch.arange(length) for length in batch.lengths])
    single = FlatBatch.single(batch.tokens, 0, Pass.ENCODER)
    return model(FlatBatch(batch.tokens, positions, single.segments), prefix), prefix


def sampled_step(logits: torch.Tensor, numbers: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """One position after the other: its sample where it is accepted (algorithm: "Sampler"), its noise elsewhere."""
    entropies, samples = [], []
    for row, number in zip(logits.double(), numbers.tolist(), strict=True):
        probs = (row - row.max()).exp()
        probs = (probs / probs.sum()).tolist()
        entropies.append(-sum(p * math.log(p) for p in probs if p > 0))
        total, token = 0.0, -1
        while total <= number and token < len(probs) - 1:
            token += 1
            total += probs[token]
        samples.append(token)
    canvas, spent = noise.tolist(), 0.0
    for place in sorted(range(len(samples)), key=entropies.__getitem__):
        if spent > 0.1:
            break
        canvas[place] = samples[place]
        spent += entropies[place]
    return torch.tensor(canvas)


def generations_way(model, batch: TrainingBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Encoder hidden states [N, D] and denoiser logits [B · K, C, V], as generation has them: one canvas at a time."""

    def encoded(tokens: torch.Tensor) -> tuple[torch.Tensor, KVCache]:
        forward = model.run(FlatBatch.single(tokens, 0, Pass.ENCODER), [KVCache(model.config)])
        return forward.hidden, forward.caches[0]

    def denoised(canvas: torch.Tensor, cache: KVCache, signal: torch.Tensor | None) -> torch.Tensor:
        flat = FlatBatch.single(canvas, cache.length, Pass.DENOISER, soft_embedding=signal)
        return model.head.logits(model.run(flat, [cache]).hidden)

    hidden, logits = [], []
    for example, tokens in enumerate(batch.tokens.split(batch.lengths)):
        hidden.append(encoded(tokens)[0])
        for start, canvas in zip(batch.canvas_starts[example], batch.noised[example], strict=True):
            _, cache = encoded(tokens[:start])
            found = denoised(canvas, cache, None)
            place = len(logits) % batch.noised.shape[1]
            for step in range(batch.unrolled[example]):
                if step:
                    found = denoised(canvas, cache, model.head.soft_embedding(found))
                found = found / float(batch.temperature[example])
                at = batch.places[len(logits)]
                at = dataclasses.replace(at, step=at.step - step)
                noise = at.random_tokens(CANVAS, VOCAB, Purpose.RENOISE)
                canvas = sampled_step(found, at.uniforms(CANVAS, Purpose.SAMPLE), noise)
            canvas = torch.where(batch.shown[example, place], batch.clean[example, place], canvas)
            if batch.conditioned[example]:
                found = denoised(canvas, cache, model.head.soft_embedding(found))
            logits.append(found)
    return torch.cat(hidden), torch.stack(logits)


MIXED = [True, False, True, False, False, True]


@torch.no_grad()
@pytest.mark.parametrize("canvases", [1, 3])
@pytest.mark.parametrize("conditioned", [False, True, MIXED], ids=["off", "on", "mixed"])
def test_training_sees_what_generation_sees(conditioned, canvases):
    model, batch = tiny_model(), make(conditioned=conditioned, canvases=canvases)
    check_sees_what_generation_sees(model, batch)


@torch.no_grad()
@pytest.mark.parametrize("sureness", [1.0, 6.0])
def test_unrolled_training_sees_what_generations_next_step_sees(sureness):
    model = tiny_model()
    model.norm.weight.mul_(sureness)  # at 6 many positions are accepted
    batch = make(conditioned=MIXED, unrolled=[1, 2, 0, 1, 0, 3], unrolling_steps=3, canvases=2)
    assert batch.unrolled.tolist() == [1, 0, 0, 0, 0, 3]
    # Every step passes on the rounding of those before it.
    check_sees_what_generation_sees(model, batch, atol=2e-3)
    # Some of the truth shown: in the first example's canvases, and in none of the second's.
    shown = torch.zeros_like(batch.shown)
    shown[0, :, ::2] = True
    check_sees_what_generation_sees(model, dataclasses.replace(batch, shown=shown), atol=2e-3)


@torch.no_grad()
def test_unrolling_accepts_as_the_sampler_does():
    model = tiny_model()
    batch = make(conditioned=True, unrolled=1)
    found = [
        denoise(model, batch, encode(model, batch)[1], SamplerSettings.of(entropy_bound=bound))
        for bound in (0.1, 1e-9, 1e9)
    ]
    assert torch.equal(found[0], denoise(model, batch, encode(model, batch)[1]))
    assert not torch.equal(found[1], found[2])


@torch.no_grad()
def test_unrolling_goes_down_the_samplers_steps():
    """A quota accepts more at each step: from noise a quarter, then a half, then three quarters of a canvas."""
    batch = make(conditioned=True, unrolled=3, sizes=((3, 24),))
    noise = Counter(8, step=4)
    batch = dataclasses.replace(
        batch, noised=noise.random_tokens(CANVAS, 5, Purpose.RENOISE)[None, None], places=(noise,)
    )
    model, read = Oracle(followers(batch), torch.full((CANVAS,), 60)), []
    model.embed_tokens, answer = torch.nn.Embedding(VOCAB, model.config.hidden_size), model.forward

    def watched(flat, context):
        read.append(int((flat.token_ids == 60).sum()))
        return answer(flat, context)

    model.forward = watched
    settings = SamplerSettings.of(steps=4, acceptance="linear_quota", stability_threshold=4)
    denoise(model, batch, encode(tiny_model(), batch)[1], settings)
    assert read == [0, 2, 4, 6]


def check_sees_what_generation_sees(model, batch: TrainingBatch, atol: float = 1e-4) -> None:
    hidden, prefix = encode(model, batch)
    logits = denoise(model, batch, prefix).view(-1, CANVAS, VOCAB)
    expected_hidden, expected_logits = generations_way(model, batch)
    torch.testing.assert_close(hidden, expected_hidden, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits, expected_logits, atol=atol, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("canvases", [1, 3])
@pytest.mark.parametrize("conditioned", [False, True, MIXED], ids=["off", "on", "mixed"])
def test_losses_are_means_over_what_generation_sees(conditioned, canvases):
    model, batch = tiny_model(), make(conditioned=conditioned, canvases=canvases)
    hidden, logits = generations_way(model, batch)
    predicted, targets = [], []
    for rows, tokens in zip(hidden.split(batch.lengths), batch.tokens.split(batch.lengths), strict=True):
        predicted.append(rows[:-1])
        targets.append(tokens[1:])
    found = losses(model, batch)
    encoder = F.cross_entropy(model.head.logits(torch.cat(predicted)), torch.cat(targets))
    canvas = F.cross_entropy(logits.flatten(0, 1), batch.clean.flatten())
    assert float(found.encoder) == pytest.approx(float(encoder), rel=1e-5)
    assert float(found.canvas) == pytest.approx(float(canvas), rel=1e-5)
    assert float(found.total) == pytest.approx(float(canvas + encoder), rel=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_tokens_of_the_prompt_count_their_weight(weight):
    model, batch = tiny_model(), make()
    hidden, _ = encode(model, batch)
    total, count = 0.0, 0.0
    for rows, tokens, (prompt, _) in zip(
        hidden.split(batch.lengths), batch.tokens.split(batch.lengths), SIZES, strict=True
    ):
        each = F.cross_entropy(model.head.logits(rows[:-1]), tokens[1:], reduction="none")
        total += weight * float(each[: prompt - 1].sum()) + float(each[prompt - 1 :].sum())
        count += weight * (prompt - 1) + len(each[prompt - 1 :])
    found = losses(model, batch, prompt_weight=weight, row_block=4)
    assert float(found.encoder) == pytest.approx(total / count, rel=1e-5)
    torch.testing.assert_close(found.canvas, losses(model, batch).canvas)


@pytest.mark.parametrize("rows", [4, 64])
def test_filled_up_rows_change_no_loss_and_no_gradient(rows):
    batch = make(conditioned=MIXED)
    assert len(batch.tokens) % 4 != 0
    found = []
    for block in (1, rows):
        model = tiny_model()
        for layer in model.layers:
            layer.experts.row_block = block
        loss = losses(model, batch, row_block=block)
        loss.total.backward()
        found.append((loss, {name: parameter.grad for name, parameter in model.named_parameters()}))
    (plain, gradients), (filled, filled_gradients) = found
    torch.testing.assert_close(filled.canvas, plain.canvas)
    torch.testing.assert_close(filled.encoder, plain.encoder)
    for name, gradient in gradients.items():
        torch.testing.assert_close(filled_gradients[name], gradient, atol=1e-5, rtol=1e-3, msg=name)


@torch.no_grad()
def test_examples_do_not_see_each_other():
    model, whole = tiny_model(), make(conditioned=MIXED, canvases=2)
    logits = denoise(model, whole, encode(model, whole)[1]).view(len(SIZES), -1, VOCAB)
    for i, tokens in enumerate(whole.tokens.split(whole.lengths)):
        alone = TrainingBatch(
            tokens=tokens,
            lengths=(whole.lengths[i],),
            answered=whole.answered.split(whole.lengths)[i],
            canvas_starts=whole.canvas_starts[i : i + 1],
            clean=whole.clean[i : i + 1],
            noised=whole.noised[i : i + 1],
            **{
                name: getattr(whole, name)[i : i + 1]
                for name in ("pinned", "conditioned", "unrolled", "temperature", "shown")
            },
            places=whole.places[2 * i : 2 * i + 2],
        )
        own = denoise(model, alone, encode(model, alone)[1])
        torch.testing.assert_close(own, logits[i], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_denoiser_does_not_see_the_answer_from_its_canvas_on():
    model, batch = tiny_model(), make(conditioned=MIXED)
    before = denoise(model, batch, encode(model, batch)[1])
    tokens = [part.clone() for part in batch.tokens.split(batch.lengths)]
    for part, start in zip(tokens, batch.canvas_starts.flatten(), strict=True):
        part[start:] = 2
    spoiled = dataclasses.replace(batch, tokens=torch.cat(tokens))
    assert not torch.equal(spoiled.tokens, batch.tokens)
    assert torch.equal(denoise(model, spoiled, encode(model, spoiled)[1]), before)
    # The token just before its canvas it does see.
    for part, start in zip(tokens, batch.canvas_starts.flatten(), strict=True):
        part[start - 1] = 2
    spoiled = dataclasses.replace(batch, tokens=torch.cat(tokens))
    changed = (denoise(model, spoiled, encode(model, spoiled)[1]) - before).view(len(SIZES), -1).abs().amax(dim=1)
    assert (changed > 1e-3).all()


@torch.no_grad()
def test_self_conditioning_is_zero_where_it_is_off():
    model = tiny_model()
    off, mixed = make(conditioned=False), make(conditioned=MIXED)
    prefix = encode(model, off)[1]
    without = denoise(model, off, prefix).view(len(SIZES), -1)
    some = denoise(model, mixed, prefix).view(len(SIZES), -1)
    distance = (without - some).abs().amax(dim=1)
    chosen = torch.tensor(MIXED)
    assert distance[~chosen].max() <= 1e-6
    assert distance[chosen].min() > 1e-2


@torch.no_grad()
def test_an_all_zero_signal_is_no_signal():
    model = tiny_model()
    embedding = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    zeros = model.self_conditioning(embedding, torch.zeros(5, 32))
    assert torch.equal(zeros, model.self_conditioning(embedding, None))


# --- the supervised tokens ----------------------------------------------------------------------------------------


class Oracle(nn.Module):
    """Answers every question of the objective with a given token; has no attention to ask."""

    sure = 40.0

    def __init__(self, encoder_says: torch.Tensor, canvas_says: torch.Tensor) -> None:
        super().__init__()
        self.config = tiny_model().config
        self.says = {Pass.ENCODER: encoder_says, Pass.DENOISER: canvas_says}

    @property
    def head(self):
        return self

    def forward(self, batch, context):
        return F.one_hot(self.says[batch.segments[0].kind], VOCAB).float()

    def logits(self, hidden):
        return hidden * self.sure

    def soft_embedding(self, logits):
        return torch.zeros(logits.shape[0], self.config.hidden_size)


def followers(batch: TrainingBatch) -> torch.Tensor:
    """Each token's successor; an example's last token, which has none, is predicted wrongly."""
    following = batch.tokens.roll(-1)
    ends = torch.tensor(batch.lengths).cumsum(0) - 1
    following[ends] = 0
    return following


def test_a_perfect_predictor_has_no_loss():
    batch = make()
    found = losses(Oracle(followers(batch), batch.clean.flatten()), batch)
    assert float(found.canvas) == pytest.approx(0, abs=1e-6)
    assert float(found.encoder) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("place", [0, 7, 20, 47])
def test_every_position_of_a_canvas_counts_alike(place):
    batch = make()
    says = batch.clean.flatten().clone()
    assert says.numel() == 48
    says[place] = 0
    found = losses(Oracle(followers(batch), says), batch)
    assert float(found.canvas) == pytest.approx(Oracle.sure / 48, rel=1e-4)
    assert float(found.encoder) == pytest.approx(0, abs=1e-6)


def test_every_token_of_prompt_and_answer_counts_alike():
    batch = make()
    ends = set((torch.tensor(batch.lengths).cumsum(0) - 1).tolist())
    predicted = batch.tokens.numel() - len(batch.lengths)
    for place in range(batch.tokens.numel()):
        says = followers(batch)
        says[place] = 2 if says[place] != 2 else 5
        encoder = float(losses(Oracle(says, batch.clean.flatten()), batch).encoder)
        assert encoder == pytest.approx(0 if place in ends else Oracle.sure / predicted, rel=1e-4, abs=1e-6)


@torch.no_grad()
def test_a_uniform_predictor_pays_the_logarithm_of_the_vocabulary():
    model = tiny_model()
    model.embed_tokens.weight.zero_()
    found = losses(model, make(conditioned=True))
    assert float(found.canvas) == pytest.approx(math.log(VOCAB), rel=1e-6)
    assert float(found.encoder) == pytest.approx(math.log(VOCAB), rel=1e-6)


def test_an_all_zero_embedding_row_keeps_gradients_finite():
    model = tiny_model()
    with torch.no_grad():
        model.embed_tokens.weight[0].zero_()
    batch = make(conditioned=MIXED)
    batch.noised[..., 0] = 0
    losses(model, batch).total.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


# --- gradients ----------------------------------------------------------------------------------------------------

SMALL = ((7, 12), (3, 6))


@pytest.fixture
def double_model(monkeypatch):
    """A model that is float64 throughout, also where the network says `.float()`: rounding would drown the slopes."""
    model = tiny_model(3).double()
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    return model


def assert_gradient_is_the_slope(model, tensor: torch.Tensor, loss, *, size: float = 1e-5) -> None:
    """Central differences at the entries where the gradient is largest, and at some others."""
    tensor.requires_grad_(True)
    model.zero_grad()
    tensor.grad = None
    loss().backward()
    gradient = tensor.grad.flatten()
    places = {*gradient.abs().topk(min(3, gradient.numel())).indices.tolist(), 0, gradient.numel() - 1}
    assert gradient.abs().max() > 1e-6
    flat = tensor.detach().view(-1)
    for place in places:
        kept = float(flat[place])
        with torch.no_grad():
            flat[place] = kept + size
            above = float(loss())
            flat[place] = kept - size
            below = float(loss())
            flat[place] = kept
        assert float(gradient[place]) == pytest.approx((above - below) / (2 * size), rel=1e-4, abs=1e-8)


PARAMETERS = [
    "embed_tokens.weight",
    "layers.0.self_attn.k_proj.weight",
    "layers.0.self_attn.v_proj.weight",
    "layers.1.self_attn.k_norm.weight",
    "layers.2.self_attn.k_proj.weight",
    "layers.1.router.proj.weight",
    "layers.1.router.per_expert_scale",
    "layers.2.experts.gate_up_proj",
    "layers.0.mlp.down_proj.weight",
    "norm.weight",
]


@pytest.mark.parametrize("name", PARAMETERS)
def test_gradient_of_the_loss_is_its_slope(double_model, name):
    batch = make(sizes=SMALL, seed=0)
    tensor = double_model.get_parameter(name)
    assert_gradient_is_the_slope(double_model, tensor, lambda: losses(double_model, batch).total)


def test_the_canvas_loss_reaches_the_encoder_through_the_cache(double_model):
    # Only the encoder pass multiplies by this scalar, so the canvas can feel it through keys and values alone.
    batch = make(sizes=SMALL, seed=0)
    scalar = double_model.layers[0].encoder_layer_scalar
    assert_gradient_is_the_slope(double_model, scalar, lambda: losses(double_model, batch).canvas)


def test_what_the_encoder_does_after_the_last_cache_is_not_the_canvas_loss_s_business(double_model):
    batch = make(sizes=SMALL, seed=0)
    scalar = double_model.layers[-1].encoder_layer_scalar.requires_grad_(True)
    assert torch.autograd.grad(losses(double_model, batch).canvas, scalar, allow_unused=True) == (None,)


@pytest.mark.parametrize(
    "name", ["embed_tokens.weight", "self_conditioning.gate_proj.weight", "layers.1.mlp.up_proj.weight"]
)
def test_the_first_pass_has_no_gradient(double_model, name, monkeypatch):
    batch = make(sizes=SMALL, seed=0, conditioned=[True, False])
    read = OutputHead.soft_embedding
    signals: list[torch.Tensor] = []
    monkeypatch.setattr(OutputHead, "soft_embedding", lambda *given: signals.append(read(*given)) or signals[-1])
    losses(double_model, batch)
    assert not signals[0].requires_grad
    # With the signal held fixed, the slope is the gradient; were it to flow through the first pass, it would not be.
    monkeypatch.setattr(OutputHead, "soft_embedding", lambda *_: signals[0])
    tensor = double_model.get_parameter(name)
    assert_gradient_is_the_slope(double_model, tensor, lambda: losses(double_model, batch).canvas)
    held = tensor.grad.clone()
    monkeypatch.setattr(OutputHead, "soft_embedding", read)
    double_model.zero_grad()
    losses(double_model, batch).canvas.backward()
    torch.testing.assert_close(tensor.grad, held)


@pytest.mark.parametrize("conditioned", [False, True])
def test_every_parameter_learns_but_those_of_an_absent_signal(conditioned):
    model = tiny_model()
    losses(model, make(conditioned=conditioned)).total.backward()
    idle = {name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()}
    signal = {name for name in idle if name.startswith("self_conditioning.")}
    assert idle == signal
    assert bool(signal) is not conditioned


# --- attention ----------------------------------------------------------------------------------------------------


def visible_to_encoder(config, lengths, layer, example, token) -> set[int]:
    reach = config.sliding_window if config.is_sliding(layer) else lengths[example]
    return {at for at in range(lengths[example]) if token - reach < at <= token}


@torch.no_grad()
@pytest.mark.parametrize("layer", [0, 2])
def test_attention_against_loops(layer):
    """Both contexts, one query head at a time over the keys that algorithm.md lets it see."""
    config = tiny_model().config
    shape, lengths, starts = config.attention_shape(layer), (9, 3, 12), ((7, 1), (2, 2), (12, 6))
    generator = torch.Generator().manual_seed(1)

    def random(tokens: int, heads: int) -> torch.Tensor:
        return torch.randn(tokens, heads, shape.head_dim, generator=generator)

    def attended(q, keys, values) -> torch.Tensor:
        heads = []
        for head in range(config.num_heads):
            group = head // (config.num_heads // shape.num_kv_heads)
            weights = (keys[:, group] @ q[head]).softmax(0)
            heads.append(weights @ values[:, group])
        return torch.stack(heads)

    total = sum(lengths)
    q, k, v = random(total, config.num_heads), random(total, shape.num_kv_heads), random(total, shape.num_kv_heads)
    prefix = PrefixAttention(config, lengths)
    found = prefix.attend(layer, q, k, v).split(lengths)
    per_example = list(zip(q.split(lengths), k.split(lengths), v.split(lengths), strict=True))
    for example, (queries, keys, values) in enumerate(per_example):
        for token in range(lengths[example]):
            seen = sorted(visible_to_encoder(config, lengths, layer, example, token))
            expected = attended(queries[token], keys[seen], values[seen])
            torch.testing.assert_close(found[example][token], expected, atol=1e-5, rtol=1e-4)

    rows = len(lengths) * 2 * CANVAS
    q, k, v = random(rows, config.num_heads), random(rows, shape.num_kv_heads), random(rows, shape.num_kv_heads)
    found = CanvasAttention(config, prefix, torch.tensor(starts), CANVAS).attend(layer, q, k, v).split(CANVAS)
    for canvas, (example, start) in enumerate((i, start) for i, pair in enumerate(starts) for start in pair):
        first = max(0, start - (config.sliding_window - 1)) if config.is_sliding(layer) else 0
        _, past_keys, past_values = per_example[example]
        own = slice(canvas * CANVAS, (canvas + 1) * CANVAS)
        keys = torch.cat((past_keys[first:start], k[own]))
        values = torch.cat((past_values[first:start], v[own]))
        for token in range(CANVAS):
            expected = attended(q[own][token], keys, values)
            torch.testing.assert_close(found[canvas][token], expected, atol=1e-5, rtol=1e-4)
