"""Prefix reuse: the caches of prompts already read, for prompts that begin as they do.

An entry is a whole committed prefix: its tokens, and a KV cache as it stood right after them, in which sliding layers
hold only their window. So a prefix can be resumed where it ends and nowhere else. Where two prompts part, the second
one's prefill makes a stop (`branch`), and the third finds an entry there: so a system prompt that many share is read
twice and then never again. Entries share their tensors with the requests that use them; nobody writes into those.
"""

from collections import OrderedDict
from collections.abc import Sequence

from redraft.model import KVCache

LEAST_TOKENS = 16
"""Shorter prefixes are read again sooner than looked up."""


class PrefixCache:
    """Entries by tokens, the one used longest ago evicted first; together at most `limit` tokens."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.tokens = 0
        self._entries: OrderedDict[tuple[int, ...], KVCache] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def num_bytes(self) -> int:
        return sum(cache.num_bytes for cache in self._entries.values())

    def find(self, prompt: Sequence[int]) -> tuple[KVCache | None, int | None]:
        """(a cache of the longest entry that `prompt` begins with, where beyond it the prompt parts from an entry).

        The cache is the caller's own. The second is a count of tokens of the prompt. None where there is none.
        """
        prompt = tuple(prompt)
        best: tuple[int, ...] = ()
        parts_at = 0
        for tokens in self._entries:
            shared = _shared(tokens, prompt)
            if shared == len(tokens) > len(best):
                best = tokens
            parts_at = max(parts_at, shared)
        branch = parts_at if parts_at >= LEAST_TOKENS and len(best) < parts_at < len(prompt) else None
        if not best:
            return None, branch
        self._entries.move_to_end(best)
        return self._entries[best].fork(), branch

    def publish(self, tokens: Sequence[int], cache: KVCache, *, instead_of: int = 0) -> None:
        """Keeps what `cache` holds now, the keys and values of just `tokens`, if that is worth it and fits.

        An entry of the first `instead_of` tokens gives way to it: of an answer's commits only the last is kept, or else
        one long answer would push out everything else.
        """
        assert cache.length == len(tokens)
        if not LEAST_TOKENS <= len(tokens) <= self.limit:
            return
        key = tuple(tokens)
        if self._entries.pop(key[:instead_of], None) is not None:
            self.tokens -= instead_of
        if key not in self._entries:
            self.tokens += len(key)
            self._entries[key] = cache.fork()
        self._entries.move_to_end(key)
        while self.tokens > self.limit:
            evicted, _ = self._entries.popitem(last=False)
            self.tokens -= len(evicted)

    def clear(self) -> None:
        """Frees everything."""
        self._entries.clear()
        self.tokens = 0


def _shared(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """How many tokens the two begin with in common."""
    most = min(len(one), len(other))
    if one[:most] == other[:most]:
        return most
    return next(i for i in range(most) if one[i] != other[i])
