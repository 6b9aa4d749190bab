"""Token by token: each is the likeliest after what stands before it, and an answer ends where generation's does."""

import pytest
import torch

from redraft.diffusion.settings import SamplerSettings
from redraft.generation.autoregressive import generate_autoregressive
from redraft.model.batch import FlatBatch, Pass
from redraft.model.cache import KVCache
from tests.fakes.models import tiny_model

PROMPT = (3, 4, 5, 6, 7, 8, 9)


@torch.no_grad()
def likeliest(model, tokens) -> int:
    batch = FlatBatch.single(torch.tensor(tokens), 0, Pass.ENCODER)
    hidden = model.run(batch, [KVCache(model.config)]).hidden
    return int(model.head.logits(hidden[-1:]).argmax())


def expected(model, count: int) -> list[int]:
    tokens = list(PROMPT)
    for _ in range(count):
        tokens.append(likeliest(model, tokens))
    return tokens[len(PROMPT) :]


def test_each_token_is_the_likeliest_of_a_whole_pass():
    model = tiny_model(eos_ids=())
    found = generate_autoregressive(model, PROMPT, SamplerSettings(max_new_tokens=20, temperature=0))
    assert list(found.token_ids) == expected(model, 20)
    assert found.finish_reason == "length"
    # The pass that would have written the 21st is what shows that no EOS ends it there.
    assert found.tokens_per_forward == 20 / 21


def test_it_ends_before_an_eos_and_counts_its_pass():
    model = tiny_model(eos_ids=())
    tokens = expected(model, 20)
    end = max(i for i in range(20) if tokens[i] not in tokens[:i])
    assert end > 1
    stopping = tiny_model(eos_ids=(tokens[end],))
    found = generate_autoregressive(stopping, PROMPT, SamplerSettings(temperature=0))
    assert list(found.token_ids) == tokens[:end]
    assert (found.finish_reason, sum(found.steps_per_canvas)) == ("stop", end + 1)
    assert {len(canvas) for canvas in found.canvases} == {model.config.canvas_length}
    # An EOS in the last place there is still ends it.
    exactly = generate_autoregressive(stopping, PROMPT, SamplerSettings(temperature=0, max_new_tokens=end))
    assert (list(exactly.token_ids), exactly.finish_reason) == (tokens[:end], "stop")
    cut = generate_autoregressive(stopping, PROMPT, SamplerSettings(temperature=0, max_new_tokens=end - 1))
    assert (list(cut.token_ids), cut.finish_reason) == (tokens[: end - 1], "length")


def test_the_context_is_the_limit():
    model = tiny_model(eos_ids=())
    prompt = PROMPT * ((model.config.max_context - 3) // len(PROMPT))
    found = generate_autoregressive(model, prompt, SamplerSettings(temperature=0))
    assert len(prompt) + len(found.token_ids) == model.config.max_context
    with pytest.raises(ValueError, match="the prompt is empty"):
        generate_autoregressive(model, (), SamplerSettings(temperature=0))
    model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="logits are not finite"):
        generate_autoregressive(model, PROMPT, SamplerSettings(temperature=0))
