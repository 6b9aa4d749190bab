"""Regular languages of bytes as expressions, and their derivatives (Brzozowski 1964).

The derivative of a language by a byte is what may follow that byte. Equal expressions are one object,
so a set of derivatives is finite and an automaton is what one finds by taking them. Intersection and complement are as
simple as alternatives, and a counted repetition is not written out.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from redraft.constraints.limits import Budget

Kind = Literal["bytes", "sequence", "alternative", "intersection", "complement", "repeat"]
Mask = int
"""A set of bytes: bit b is set if byte b belongs to it."""
ALL_BYTES: Mask = (1 << 256) - 1
NODE_BYTES = 400
PART_BYTES = 24
LINK_BYTES = 160


class Expression:
    """A node; only an `Expressions` makes it. Two nodes of one table are equal if they are the same object.

    mask: of "bytes". low, high: of "repeat"; high None is no bound. is_nullable: whether the empty text belongs to it.
    """

    __slots__ = ("derivatives", "high", "is_nullable", "kind", "low", "mask", "number", "parts")

    def __init__(
        self, number: int, kind: Kind, parts: tuple["Expression", ...], mask: Mask, low: int, high: int | None
    ) -> None:
        self.number, self.kind, self.parts, self.mask, self.low, self.high = number, kind, parts, mask, low, high
        self.derivatives: tuple[tuple[Mask, Expression], ...] | None = None
        self.is_nullable = _is_nullable(self)


def _is_nullable(expression: Expression) -> bool:
    match expression.kind:
        case "bytes":
            return False
        case "sequence" | "intersection":
            return all(part.is_nullable for part in expression.parts)
        case "alternative":
            return any(part.is_nullable for part in expression.parts)
        case "complement":
            return not expression.parts[0].is_nullable
        case "repeat":
            return expression.low == 0 or expression.parts[0].is_nullable


class Expressions:
    """The table of one build. It goes with the build, so that tables do not grow from one constraint to the next."""

    def __init__(self, budget: Budget | None = None) -> None:
        self.budget = budget or Budget()
        self._nodes: dict[tuple[object, ...], Expression] = {}
        self._appended: dict[tuple[Expression, Expression], Expression] = {}
        self.empty = self.byte(0)
        """The language without any text."""
        self.epsilon = self._node("sequence")
        """The language of the empty text."""
        self.anything = self._node("complement", (self.empty,))

    def byte(self, mask: Mask) -> Expression:
        """Returns the texts of one byte of the mask."""
        return self._node("bytes", mask=mask)

    def literal(self, text: bytes) -> Expression:
        return self.sequence(*(self.byte(1 << byte) for byte in text))

    def literals(self, texts: Iterable[bytes]) -> Expression:
        """Returns the language of some texts; those that begin alike share their beginning."""
        trie: list[dict[int, int]] = [{}]
        ends = set()
        for text in texts:
            node = 0
            for byte in text:
                below = trie[node].setdefault(byte, len(trie))
                if below == len(trie):
                    trie.append({})
                    self.budget.spend(NODE_BYTES)
                node = below
            ends.add(node)
        languages = [self.epsilon if node in ends else self.empty for node in range(len(trie))]
        for node in reversed(range(len(trie))):
            continued = [self.sequence(self.byte(1 << byte), languages[below]) for byte, below in trie[node].items()]
            languages[node] = self.alternative([languages[node], *continued])
        return languages[0]

    def sequence(self, *expressions: Expression) -> Expression:
        """Returns the concatenation."""
        tail = self.epsilon
        for expression in reversed(expressions):
            tail = self._append(expression, tail)
        return tail

    def alternative(self, expressions: Iterable[Expression]) -> Expression:
        """Returns the union."""
        mask = 0
        parts: dict[int, Expression] = {}
        for part in _flat("alternative", expressions):
            if part is self.anything:
                return part
            if part.kind == "bytes":
                mask |= part.mask
            else:
                parts[part.number] = part
        found = self._join_counts(parts.values())
        if mask:
            found.append(self.byte(mask))
        if len(found) <= 1:
            return found[0] if found else self.empty
        return self._node("alternative", tuple(sorted(found, key=_number)))

    def intersection(self, expressions: Iterable[Expression]) -> Expression:
        """Returns the texts that belong to all of the languages."""
        mask: Mask | None = None
        parts: dict[int, Expression] = {}
        for part in _flat("intersection", expressions):
            if part.kind == "bytes":
                mask = part.mask if mask is None else mask & part.mask
            elif part is not self.anything:
                parts[part.number] = part
        if mask is not None:
            # What is one byte long can be decided at once.
            for part in parts.values():
                mask &= sum(found for found, after in self.derivatives(part) if after.is_nullable)
            return self.byte(mask)
        if len(parts) <= 1:
            return next(iter(parts.values()), self.anything)
        return self._node("intersection", tuple(sorted(parts.values(), key=_number)))

    def complement(self, expression: Expression) -> Expression:
        """Returns all byte strings that do not belong to the language, those that are not UTF-8 included."""
        return expression.parts[0] if expression.kind == "complement" else self._node("complement", (expression,))

    def repeat(self, expression: Expression, low: int = 0, high: int | None = None) -> Expression:
        """Returns `low` to `high` texts of the language after one another; without `high`, any number from `low` on."""
        assert high is None or low <= high
        if high == 0 or expression is self.epsilon or (expression is self.empty and low == 0):
            return self.epsilon
        if expression is self.empty or low == high == 1:
            return expression
        if expression.kind == "repeat" and expression.low <= 1 and expression.high is None and high is None:
            return self._node("repeat", expression.parts, low=low if expression.low else 0)
        return self._node("repeat", (expression,), low=0 if expression.is_nullable else low, high=high)

    def optional(self, expression: Expression) -> Expression:
        return self.alternative((self.epsilon, expression))

    def derivatives(self, expression: Expression) -> tuple[tuple[Mask, Expression], ...]:
        """Returns (mask, what may follow a byte of the mask); the masks are disjoint, other bytes have no follower."""
        # Worked off from a list, since expressions may be nested deeper than Python's calls may be.
        pending = [expression]
        while pending:
            needed = [part for part in self._leading_parts(pending[-1]) if part.derivatives is None]
            if needed:
                pending += needed
            else:
                top = pending.pop()
                if top.derivatives is None:
                    top.derivatives = tuple(
                        (mask, after) for mask, after in self._derive(top) if after is not self.empty
                    )
                    self.budget.spend(PART_BYTES * len(top.derivatives))
        assert expression.derivatives is not None
        return expression.derivatives

    def after(self, expression: Expression, text: bytes) -> Expression:
        """Returns what may follow a text."""
        for byte in text:
            expression = next((after for mask, after in self.derivatives(expression) if mask >> byte & 1), self.empty)
        return expression

    def contains(self, expression: Expression, text: bytes) -> bool:
        """Tells whether a text belongs to the language."""
        return self.after(expression, text).is_nullable

    def _node(
        self,
        kind: Kind,
        parts: tuple[Expression, ...] = (),
        *,
        mask: Mask = 0,
        low: int = 0,
        high: int | None = None,
    ) -> Expression:
        key = (kind, mask, low, high, *map(_number, parts))
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = Expression(len(self._nodes), kind, parts, mask, low, high)
            self.budget.spend(NODE_BYTES + PART_BYTES * len(parts))
        return node

    def _append(self, head: Expression, tail: Expression) -> Expression:
        """Returns head and tail in one chain. Of a long head, derived byte by byte, only the beginning is new."""
        if tail is self.epsilon:
            return head
        chain = []
        found = None
        while head.kind == "sequence" and head.parts:
            found = self._appended.get((head, tail))
            if found is not None:
                break
            chain.append(head)
            head = head.parts[1]
        if found is None:
            found = tail if head is self.epsilon else self._pair(head, tail)
        for link in reversed(chain):
            found = self._appended[link, tail] = self._pair(link.parts[0], found)
            self.budget.spend(LINK_BYTES)
        return found

    def _pair(self, head: Expression, tail: Expression) -> Expression:
        if head is self.empty or tail is self.empty:
            return self.empty
        return self._node("sequence", (head, tail))

    def _join_counts(self, parts: Iterable[Expression]) -> list[Expression]:
        """Returns the parts of a union, in which x{0,8}y and x{0,9}y have become one: else unions grow step by step."""
        found: list[Expression] = []
        counted: dict[tuple[Expression, Expression], list[Expression]] = {}
        for part in parts:
            is_pair = part.kind == "sequence" and bool(part.parts)
            head, tail = part.parts if is_pair else (part, self.epsilon)
            if head.kind == "repeat":
                counted.setdefault((head.parts[0], tail), []).append(head)
            else:
                found.append(part)
        for (body, tail), heads in counted.items():
            for low, high in _joined([(head.low, head.high) for head in heads]):
                found.append(self.sequence(self._node("repeat", (body,), low=low, high=high), tail))
        return found

    @staticmethod
    def _leading_parts(expression: Expression) -> tuple[Expression, ...]:
        """Returns the parts whose derivatives those of the expression are made of."""
        if expression.kind == "sequence" and expression.parts:
            head = expression.parts[0]
            return expression.parts if head.is_nullable else (head,)
        return expression.parts

    def _derive(self, expression: Expression) -> Iterable[tuple[Mask, Expression]]:
        parts = expression.parts
        match expression.kind:
            case "bytes":
                return [(expression.mask, self.epsilon)] if expression.mask else []
            case "sequence" if not parts:
                return []
            case "sequence":
                head, tail = parts
                found = [(mask, self.sequence(after, tail)) for mask, after in self.derivatives(head)]
                return self._union([found, self.derivatives(tail)]) if head.is_nullable else found
            case "alternative":
                return self._union([self.derivatives(part) for part in parts])
            case "intersection":
                return self._common([self.derivatives(part) for part in parts])
            case "complement":
                inside = self.derivatives(parts[0])
                rest = ALL_BYTES & ~sum(mask for mask, _ in inside)
                found = [(mask, self.complement(after)) for mask, after in inside]
                return [*found, (rest, self.anything)] if rest else found
            case "repeat":
                high = None if expression.high is None else expression.high - 1
                rest_of = self.repeat(parts[0], max(expression.low - 1, 0), high)
                return [(mask, self.sequence(after, rest_of)) for mask, after in self.derivatives(parts[0])]

    def _union(self, lists: Iterable[Iterable[tuple[Mask, Expression]]]) -> Iterator[tuple[Mask, Expression]]:
        blocks: list[tuple[Mask, list[Expression]]] = []
        for mask, after in (pair for pairs in lists for pair in pairs):
            divided: list[tuple[Mask, list[Expression]]] = []
            for block, afters in blocks:
                if common := block & mask:
                    divided.append((common, [*afters, after]))
                if left := block & ~mask:
                    divided.append((left, afters))
                mask &= ~block
            if mask:
                divided.append((mask, [after]))
            blocks = divided
        return _grouped((mask, self.alternative(afters)) for mask, afters in blocks)

    def _common(self, lists: Sequence[Sequence[tuple[Mask, Expression]]]) -> Iterator[tuple[Mask, Expression]]:
        blocks: list[tuple[Mask, list[Expression]]] = [(ALL_BYTES, [])]
        for pairs in lists:
            blocks = [
                (common, [*afters, after])
                for block, afters in blocks
                for mask, after in pairs
                if (common := block & mask)
            ]
        return _grouped((mask, self.intersection(afters)) for mask, afters in blocks)


def byte_range(low: int, high: int) -> Mask:
    """Returns the mask of the bytes from low to high, both included."""
    return (1 << high + 1) - (1 << low)


def _number(expression: Expression) -> int:
    return expression.number


def _flat(kind: Kind, expressions: Iterable[Expression]) -> Iterator[Expression]:
    for expression in expressions:
        if expression.kind == kind:
            yield from expression.parts
        else:
            yield expression


def _grouped(pairs: Iterable[tuple[Mask, Expression]]) -> Iterator[tuple[Mask, Expression]]:
    masks: dict[Expression, Mask] = {}
    for mask, after in pairs:
        masks[after] = masks.get(after, 0) | mask
    return ((mask, after) for after, mask in masks.items())


def _joined(ranges: list[tuple[int, int | None]]) -> Iterator[tuple[int, int | None]]:
    """Yields the union of ranges of counts, those that touch joined."""
    ranges.sort(key=lambda bounds: bounds[0])
    low, high = ranges[0]
    for next_low, next_high in ranges[1:]:
        if high is None or next_low <= high + 1:
            high = None if high is None or next_high is None else max(high, next_high)
        else:
            yield low, high
            low, high = next_low, next_high
    yield low, high
