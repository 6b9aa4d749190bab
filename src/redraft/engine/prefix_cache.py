"""Prefix reuse: the caches of prompts already read, for prompts that begin as they do.

An entry is a whole committed prefix: its tokens, and a KV cache as it stood right after them, in which sliding layers
hold only their window. So a prefix can be resumed where it ends and nowhere else. Where two prompts part, the second
one's prefill makes a stop (`branch`), and the third finds an entry there: so a system prompt that many share is read
twice and then never again. Entries share their tensors with the sequences that use them; nobody writes into those.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from redraft.model.cache import KVCache

MIN_TOKENS = 16
"""Shorter prefixes are read again sooner than looked up."""

Key = tuple[str | None, tuple[int, ...]]
"""The digest of the adapter that the keys and values were computed with, None without one, and the tokens."""


@dataclass
class _Node:
    """A place in the tree of all entries: what has been read on the way here, and what may come next.

    edges: by their first token, a run of tokens and the place behind it. cache: that of the entry that ends here.
    """

    edges: dict[int, tuple[tuple[int, ...], "_Node"]] = field(default_factory=dict)
    cache: KVCache | None = None


class PrefixCache:
    """Entries by adapter and tokens, the least recently used evicted first; together at most `limit` tokens.

    A look-up reads the prompt once, however many entries there are.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.clear()

    def __len__(self) -> int:
        return len(self._used)

    @property
    def num_bytes(self) -> int:
        """Bytes of all entries; tensors that entries share are counted for each."""
        return sum(cache.num_bytes for cache in self._used.values())

    def find(self, prompt: Sequence[int], adapter: str | None = None) -> tuple[KVCache | None, int | None]:
        """Finds the cache of the longest entry that `prompt` begins with, and where beyond it both part from an entry.

        The second is a count of tokens of the prompt. Either is None where there is none.
        """
        prompt, node = tuple(prompt), self._roots.get(adapter, _Node())
        at = best = 0
        while edge := node.edges.get(prompt[at]) if at < len(prompt) else None:
            run, behind = edge
            shared = _shared(run, prompt[at : at + len(run)])
            at += shared
            if shared < len(run):
                break
            node = behind
            if node.cache is not None:
                best = at
        branch = at if at >= MIN_TOKENS and best < at < len(prompt) else None
        if not best:
            return None, branch
        self._used.move_to_end((adapter, prompt[:best]))
        return self._used[adapter, prompt[:best]], branch

    def publish(
        self, tokens: Sequence[int], cache: KVCache, *, adapter: str | None = None, instead_of: int = 0
    ) -> None:
        """Keeps `cache`, the keys and values of just `tokens`, if that is worth it and fits.

        An entry of the first `instead_of` tokens gives way to it: of an answer's commits only the last is kept, or else
        one long answer would push out everything else.
        """
        assert cache.length == len(tokens)
        if not MIN_TOKENS <= len(tokens) <= self.limit:
            return
        key = (adapter, tuple(tokens))
        if (adapter, key[1][:instead_of]) in self._used:
            self._remove((adapter, key[1][:instead_of]))
        if key not in self._used:
            self.tokens += len(tokens)
            self._used[key] = cache
            _insert(self._roots.setdefault(adapter, _Node()), key[1], cache)
        self._used.move_to_end(key)
        while self.tokens > self.limit:
            self._remove(next(iter(self._used)))

    def clear(self) -> None:
        """Frees everything."""
        self.tokens = 0
        self._roots: dict[str | None, _Node] = {}
        self._used: OrderedDict[Key, KVCache] = OrderedDict()

    def _remove(self, key: Key) -> None:
        adapter, tokens = key
        del self._used[key]
        self.tokens -= len(tokens)
        _delete(self._roots[adapter], tokens)


def _insert(node: _Node, tokens: tuple[int, ...], cache: KVCache) -> None:
    while tokens:
        run, behind = node.edges.get(tokens[0], (tokens, None))
        shared = _shared(run, tokens)
        if behind is None:
            behind = _Node()
        elif shared < len(run):
            behind = _Node({run[shared]: (run[shared:], behind)})
        node.edges[tokens[0]] = (run[:shared], behind)
        node, tokens = behind, tokens[shared:]
    node.cache = cache


def _delete(root: _Node, tokens: tuple[int, ...]) -> None:
    way, node = [], root
    while tokens:
        run, behind = node.edges[tokens[0]]
        way.append((node, tokens[0]))
        node, tokens = behind, tokens[len(run) :]
    node.cache = None
    # What leads nowhere any more goes with it.
    while way and node.cache is None and not node.edges:
        node, first = way.pop()
        del node.edges[first]


def _shared(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """Counts the tokens that the two begin with in common."""
    most = min(len(one), len(other))
    if one[:most] == other[:most]:
        return most
    return next(i for i in range(most) if one[i] != other[i])
