"""The autoregressive baseline: the same weights, token by token, many requests at once, as fast as we can.

Each forward is one token of every request, keys and values are written into room that is allocated once, and of the
logits only the largest is found.

B requests, T tokens of each prompt, H query heads, G key-value heads, d head size, D hidden, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from redraft.benchmark.compare import random_prompts
from redraft.benchmark.steps import Step
from redraft.benchmark.timing import Spread, alternate, seconds_of
from redraft.model.batch import FlatBatch, Pass, Segment
from redraft.model.cache import KVCache
from redraft.model.linear.methods import PackedLinear, PlainLinear, has_onednn
from redraft.model.transformer import Transformer

CHUNK = 64
"""The argmax of a long row is that of the chunk with the largest maximum, which is several times as fast to find."""


class AutoregressiveBaseline:
    """A greedy decoder of B prompts of one length, int64 [B, T], for up to `room` tokens each. No EOS ends it.

    The engine's mode keeps a token's bits the same in any batch, for which attention without our kernels computes
    blocks of queries; a baseline must not pay for that.
    """

    @torch.inference_mode()
    def __init__(self, model: Transformer, prompts: Tensor, room: int) -> None:
        self._model = model
        weight = model.embed_tokens.weight
        requests, length = prompts.shape
        self._cache = _Cache(model, requests, length + room)
        packs = has_onednn(weight.device, weight.dtype)
        self._readout = PackedLinear(weight) if packs else PlainLinear(weight)
        last = []
        for request, prompt in enumerate(prompts):
            read = model.run(FlatBatch.single(prompt, 0, Pass.ENCODER), (KVCache(model.config),))
            self._cache.fill(request, read.caches[0])
            last.append(read.hidden[-1:])
        self._cache.length = length
        self._next = self._argmax(torch.cat(last))

    @torch.inference_mode()
    def token(self) -> Tensor:
        """Returns the next token of every request, int64 [B], and runs the encoder pass over it."""
        found, at = self._next, self._cache.length
        segments = tuple(Segment(i, i, 1, at, Pass.ENCODER) for i in range(len(found)))
        # Not padded: padding rows would choose experts of their own.
        batch = FlatBatch(found, torch.full_like(found, at), segments)
        self._next = self._argmax(self._model(batch, self._cache))
        self._cache.length += 1
        return found

    def _argmax(self, hidden: Tensor) -> Tensor:
        """Returns the argmax token, hidden [B, D] → int64 [B]. Without the softcap, which does not change the order."""
        logits: Tensor = self._readout(hidden)
        if missing := -logits.shape[1] % CHUNK:
            logits = F.pad(logits, (0, missing), value=-torch.inf)
        chunks = logits.view(len(logits), -1, CHUNK)
        chunk = chunks.amax(dim=-1).argmax(dim=-1)
        found: Tensor = chunks[torch.arange(len(chunk)), chunk].argmax(dim=-1) + chunk * CHUNK
        return found


class _Cache:
    """Keys and values of every layer, [B, G, room, d]; attends one token of every request at a time."""

    def __init__(self, model: Transformer, requests: int, room: int) -> None:
        config, dtype = model.config, model.embed_tokens.weight.dtype
        self._config = config
        self.length = 0
        shapes = [config.attention_shape(layer) for layer in range(config.num_layers)]
        self._keys, self._values = (
            [torch.zeros(requests, shape.num_kv_heads, room, shape.head_dim, dtype=dtype) for shape in shapes]
            for _ in range(2)
        )

    def fill(self, request: int, cache: KVCache) -> None:
        """Copies a request's cache after its prompt."""
        for layer in range(self._config.num_layers):
            for held, content in zip((self._keys, self._values), cache.content(layer), strict=True):
                assert content is not None
                held[layer][request, :, cache.length - len(content) : cache.length] = content.transpose(0, 1)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attends to everything written so far: q [B, H, d], k and v [B, G, d] → [B, H, d]."""
        self._keys[layer][:, :, self.length] = k
        self._values[layer][:, :, self.length] = v
        past = self._config.visible_past(layer)
        seen = slice(0 if past is None else max(0, self.length - past), self.length + 1)
        queries = q.view(q.shape[0], k.shape[1], -1, q.shape[2])
        scores = queries @ self._keys[layer][:, :, seen].mT
        mixed: Tensor = scores.float().softmax(dim=-1).to(v.dtype) @ self._values[layer][:, :, seen]
        return mixed.flatten(1, 2)


@dataclass(frozen=True)
class AutoregressiveComparison:
    """The seconds of a denoising step, of a commit and of a token, each for all requests.

    break_even: the denoising steps per canvas at which both are as fast, C · token = steps · step + commit.
    """

    step: Spread
    commit: Spread
    token: Spread
    break_even: Spread


def compare_autoregressive(
    model: Transformer, batch: int, context: int, *, rounds: int, tokens: int = 8
) -> AutoregressiveComparison:
    """Measures a step, a commit and `tokens` tokens in turn. The tokens stand where a canvas's middle would."""
    step = Step(model, batch, context)
    length = step.length
    prompts = random_prompts(model.config.vocab_size, batch, max(1, context + length // 2))
    decoding = AutoregressiveBaseline(model, prompts, (rounds + 1) * tokens)
    steps, commits, each = alternate(
        rounds,
        lambda: seconds_of(step.run),
        lambda: seconds_of(step.commit),
        lambda: seconds_of(decoding.token, tokens),
    )
    even = [(length * one - commit) / taken for one, commit, taken in zip(each, commits, steps, strict=True)]
    return AutoregressiveComparison(*map(Spread.of, (steps, commits, each, even)))
