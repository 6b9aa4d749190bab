"""Token by token through the encoder pass: what the same weights do without a canvas, for comparison.

The encoder is trained to predict the next token: decoding it greedily is the autoregressive reading of the one stack.
"""

import time
from collections.abc import Generator, Sequence

import torch

from redraft.diffusion.settings import SamplerSettings
from redraft.generation.result import Generation, check_prompt, not_finite, result_of
from redraft.model.attention import KVCache
from redraft.model.batch import FlatBatch, Pass
from redraft.model.transformer import Transformer
from redraft.utils.canvas import cut_canvas


def generate_autoregressive(model: Transformer, prompt: Sequence[int], settings: SamplerSettings) -> Generation:
    """Runs `autoregressive_tokens` to its end."""
    return result_of(autoregressive_tokens(model, prompt, settings))


@torch.inference_mode()
def autoregressive_tokens(
    model: Transformer, prompt: Sequence[int], settings: SamplerSettings
) -> Generator[int, None, Generation]:
    """Yields the likeliest token, one encoder pass after the other; the generator's return value is the answer.

    It ends at an EOS, after `max_new_tokens` or at the end of the context. Of the settings only
    max_new_tokens counts. In the result a canvas is as many tokens as the model's is long, filled up with the last one,
    and a step is one encoder pass, the first of them the prompt's. Raises what `generate` raises, when first asked.
    """
    config = model.config
    check_prompt(prompt, 1, config.vocab_size, config.max_context)
    cache, pending = KVCache(config), list(prompt)
    written: list[int] = []
    marks = [time.perf_counter()]
    room = min(settings.max_new_tokens, config.max_context - len(prompt))
    while not written or (written[-1] not in config.eos_ids and len(written) <= room):
        batch = FlatBatch.single(
            torch.tensor(pending, device=model.embed_tokens.weight.device), cache.length, Pass.ENCODER
        )
        context = model.attention(batch.segments, (cache,))
        logits = model.logits(model(batch, context)[-1:])
        context.advance()
        if not logits.isfinite().all():
            raise not_finite(f"behind token {cache.length}")
        written.append(int(logits.argmax()))
        pending = written[-1:]
        marks.append(time.perf_counter())
        if written[-1] not in config.eos_ids and len(written) <= room:
            yield written[-1]
    answer, finish_reason = cut_canvas(written, config.eos_ids, room)
    # The loop ends with an EOS or with a token for which there is no room.
    assert finish_reason is not None
    length = config.canvas_length
    blocks = [written[at : at + length] for at in range(0, len(written), length)]
    blocks[-1] += written[-1:] * (length - len(blocks[-1]))
    return Generation(
        token_ids=tuple(answer),
        finish_reason=finish_reason,
        seed=0,
        steps_per_canvas=tuple(min(length, len(written) - at) for at in range(0, len(written), length)),
        tokens_per_forward=(len(answer) + (finish_reason == "stop")) / len(written),
        prefill_seconds=marks[1] - marks[0],
        denoising_seconds=0.0,
        commit_seconds=marks[-1] - marks[1],
        canvases=tuple(map(tuple, blocks)),
    )
