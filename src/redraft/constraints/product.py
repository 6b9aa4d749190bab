"""The product of an automaton over bytes with a vocabulary: an automaton over tokens.

A run of bytes acts on the automaton as a partial function from states to states. What follows a run depends on its
function alone, so the walk goes down the trie by functions, not by nodes: all nodes of a level with one function are
continued together. There are few functions (as many as classes of tokens, and their beginnings), however large the
vocabulary is.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redraft.constraints.automaton import DEAD, ByteAutomaton
from redraft.constraints.limits import Budget
from redraft.constraints.tokens import NEVER, TokenAutomaton
from redraft.constraints.vocabulary import Vocabulary

Ints = NDArray[np.integer]
CHUNK = 1 << 18
"""Pairs of states that are looked at together: arrays of few megabytes."""
PAIR_BYTES = 8
FAR = np.iinfo(np.int32).max


@dataclass(frozen=True, eq=False)
class _Functions:
    """F partial functions: f takes source[i] to target[i] for first[f] ≤ i < first[f+1], sources in order."""

    first: Ints
    source: Ints
    target: Ints

    def __len__(self) -> int:
        return len(self.first) - 1

    def places(self, rows: Ints) -> tuple[Ints, Ints]:
        """Returns the places of the pairs of some functions, one after the other, and whose pair each is, by row."""
        counts = self.first[rows + 1] - self.first[rows]
        owner = np.repeat(np.arange(len(rows)), counts)
        begins = self.first[rows] - (np.cumsum(counts) - counts)
        return np.arange(len(owner)) + np.repeat(begins, counts), owner

    def select(self, rows: Ints) -> "_Functions":
        places, owner = self.places(rows)
        return _make(owner, self.source[places], self.target[places], len(rows))

    def distinct(self) -> tuple["_Functions", Ints]:
        """Returns the functions without repetitions, and of each the number that it has among them."""
        if not len(self):
            return self, np.zeros(0, dtype=np.int64)
        sums = np.append(np.uint64(0), np.cumsum(_mixed(self.source, self.target)))
        _, kept, number = np.unique(
            sums[self.first[1:]] - sums[self.first[:-1]], return_index=True, return_inverse=True
        )
        # Equal sums of 64 bits are not a proof; equal pairs are.
        found, twins = self.select(kept), self.select(kept[number])
        assert np.array_equal(twins.source, self.source)
        assert np.array_equal(twins.target, self.target)
        return found, number


def token_automaton(automaton: ByteAutomaton, vocabulary: Vocabulary, budget: Budget | None = None) -> TokenAutomaton:
    """Returns what the language of an automaton allows token by token.

    Raises ValueError if the vocabulary cannot spell any of its texts, LimitExceeded if the result is too large.
    """
    budget = budget or Budget()
    if vocabulary.strips_first_space:
        automaton = _with_free_space(automaton)
    class_of_token, functions = _token_classes(automaton, vocabulary, budget)
    return _assemble(automaton, vocabulary, class_of_token, functions, budget)


def _with_free_space(automaton: ByteAutomaton) -> ByteAutomaton:
    """Returns the automaton that skips one space at the very start, which decoding loses."""
    byte_class = automaton.byte_class.copy()
    space = automaton.next.shape[1]
    table = np.column_stack([automaton.next, automaton.next[:, byte_class[ord(" ")]]])
    byte_class[ord(" ")] = space
    table = np.where(table == DEAD, DEAD, table + 1)
    start = table[0].copy()
    start[space] = 1
    return ByteAutomaton(
        byte_class=byte_class,
        next=np.vstack([start, table]).astype(np.int32),
        accepts=np.append(automaton.accepts[0], automaton.accepts),
    )


def _token_classes(
    automaton: ByteAutomaton, vocabulary: Vocabulary, budget: Budget
) -> tuple[NDArray[np.int32], _Functions]:
    """Returns the class of each token, NEVER for those without a function, and the functions of the classes."""
    states = np.arange(automaton.num_states, dtype=np.int32)
    functions = _Functions(np.array([0, len(states)]), states, states)
    of_node: Ints = np.zeros(1, dtype=np.int64)
    class_of_token = np.full(vocabulary.size, NEVER, dtype=np.int32)
    found: list[_Functions] = []
    num_found = 0
    for level in vocabulary.levels:
        functions, of_node = _descend(
            functions, of_node[level.parent], automaton.byte_class[level.byte], automaton, budget
        )
        ended = of_node[level.token_nodes]
        is_allowed = ended != DEAD
        rows, number = np.unique(ended[is_allowed], return_inverse=True)
        class_of_token[level.tokens[is_allowed]] = num_found + number
        found.append(functions.select(rows))
        num_found += len(rows)
        if not len(functions):
            break
    classes, merged = _joined(found).distinct()
    return np.append(merged, NEVER)[class_of_token].astype(np.int32), classes


def _descend(
    functions: _Functions, of_parent: Ints, byte_class: Ints, automaton: ByteAutomaton, budget: Budget
) -> tuple[_Functions, Ints]:
    """Returns the functions one byte further down the trie, and for each node its own, DEAD where nothing is left."""
    num_classes = automaton.next.shape[1]
    is_alive = of_parent != DEAD
    steps, step_of_node = np.unique(of_parent[is_alive] * num_classes + byte_class[is_alive], return_inverse=True)
    rows, classes = np.divmod(steps, num_classes)
    sizes = np.cumsum(functions.first[rows + 1] - functions.first[rows])
    cuts = np.searchsorted(sizes, np.arange(CHUNK, sizes[-1] if len(sizes) else 0, CHUNK))
    parts: list[_Functions] = []
    numbers: list[Ints] = []
    held = 0
    for chunk in np.split(np.arange(len(steps)), cuts):
        budget.check()
        places, owner = functions.places(rows[chunk])
        target = automaton.next[functions.target[places], classes[chunk][owner]]
        kept = target != DEAD
        stepped = _make(owner[kept], functions.source[places][kept], target[kept], len(chunk))
        is_empty = stepped.first[1:] == stepped.first[:-1]
        part, number = stepped.select(np.flatnonzero(~is_empty)).distinct()
        of_step = np.full(len(chunk), DEAD, dtype=np.int64)
        of_step[~is_empty] = number + sum(len(part) for part in parts)
        parts.append(part)
        numbers.append(of_step)
        held += len(part.source) * PAIR_BYTES
        budget.check_count("bytes", held)
    found, number = _joined(parts).distinct()
    of_step = np.concatenate(numbers)
    of_step = np.where(of_step == DEAD, DEAD, np.append(number, DEAD)[of_step])
    of_node = np.full(len(of_parent), DEAD, dtype=np.int64)
    of_node[is_alive] = of_step[step_of_node]
    return found, of_node


def _assemble(
    automaton: ByteAutomaton,
    vocabulary: Vocabulary,
    class_of_token: NDArray[np.int32],
    functions: _Functions,
    budget: Budget,
) -> TokenAutomaton:
    """Adds the end of the answer, and keeps what lies on a way from the start to it."""
    done, end_class = automaton.num_states, len(functions)
    accepting = np.append(np.flatnonzero(automaton.accepts), done)
    source = np.concatenate([functions.source, accepting])
    target = np.concatenate([functions.target, np.full(len(accepting), done)])
    arc_class = np.repeat(np.arange(end_class + 1), np.append(np.diff(functions.first), len(accepting)))
    class_of_token[list(vocabulary.end_ids)] = end_class
    distance = _distances(target, source, done, done + 1)
    if distance[0] == FAR:
        raise ValueError("the tokens of this vocabulary cannot write any text that fits this constraint")
    is_kept = (distance != FAR) & (_distances(source, target, 0, done + 1) != FAR)
    budget.check_count("token_states", int(is_kept.sum()))
    kept = is_kept[source] & is_kept[target]
    renumbered = np.cumsum(is_kept) - 1
    arcs = _make(arc_class[kept], renumbered[source[kept]], renumbered[target[kept]], end_class + 1)
    # Classes that differed in states now gone are one.
    is_empty = arcs.first[1:] == arcs.first[:-1]
    classes, number = arcs.select(np.flatnonzero(~is_empty)).distinct()
    budget.check_count("arcs", len(classes.source))
    of_class = np.full(end_class + 2, NEVER)
    of_class[:-1][~is_empty] = number
    order = np.argsort(classes.source, kind="stable")
    num_states = int(is_kept.sum())
    return TokenAutomaton(
        class_of_token=of_class[class_of_token].astype(np.int32),
        first=np.searchsorted(classes.source[order], np.arange(num_states + 1)).astype(np.int32),
        arc_class=np.repeat(np.arange(len(classes)), np.diff(classes.first))[order].astype(np.int32),
        target=classes.target[order].astype(np.int32),
        distance=distance[is_kept].astype(np.int32),
        start=0,
        done=num_states - 1,
    )


def _distances(source: Ints, target: Ints, start: int, num_states: int) -> Ints:
    """Returns the fewest arcs from a state to each state, FAR where there is no way."""
    pairs = np.unique(source.astype(np.int64) * num_states + target)
    tails, heads = np.divmod(pairs, num_states)
    first = np.searchsorted(tails, np.arange(num_states + 1)).tolist()
    followers = heads.tolist()
    distance = [FAR] * num_states
    distance[start] = 0
    pending = [start]
    for state in pending:  # grows while it is read
        for follower in followers[first[state] : first[state + 1]]:
            if distance[follower] == FAR:
                distance[follower] = distance[state] + 1
                pending.append(follower)
    return np.array(distance)


def _make(owner: Ints, source: Ints, target: Ints, count: int) -> _Functions:
    """Returns functions from pairs whose owners are in order."""
    return _Functions(np.searchsorted(owner, np.arange(count + 1)), source, target)


def _joined(parts: list[_Functions]) -> _Functions:
    """Returns the functions of all parts, one part after the other."""
    sizes = np.concatenate([np.diff(part.first) for part in parts])
    source = np.concatenate([part.source for part in parts])
    target = np.concatenate([part.target for part in parts])
    return _Functions(np.append(0, np.cumsum(sizes)), source, target)


def _mixed(source: Ints, target: Ints) -> NDArray[np.uint64]:
    """Returns 64 well mixed bits for each pair (splitmix64, Steele et al. 2014)."""
    bits = source.astype(np.uint64) << np.uint64(32) | target.astype(np.uint64)
    bits = (bits + np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
