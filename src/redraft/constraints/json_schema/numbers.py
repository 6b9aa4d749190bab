"""Numbers between bounds as languages of their digits."""

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from redraft.constraints.language.expression import Expression, Expressions, byte_range

MAX_DIGITS = 15
"""A double tells all decimals of so many digits apart."""


@dataclass(frozen=True)
class Bound:
    """A limit of a number. is_open: whether the limit itself does not belong to it."""

    value: Decimal
    is_open: bool = False


class Numbers:
    """Languages of integers and numbers, written without a plus sign, without leading zeros, and never -0."""

    def __init__(self, table: Expressions) -> None:
        self._table = table
        self._any_digit = self._digits(0, 9)
        digits = table.repeat(self._any_digit, 0, MAX_DIGITS - 1)
        self._whole = table.alternative([self._digits(0, 0), table.sequence(self._digits(1, 9), digits)])
        self._point = table.literal(b".")
        self._fraction = table.optional(table.sequence(self._point, table.repeat(self._any_digit, 1)))

    def integers(self, low: Bound | None = None, high: Bound | None = None) -> Expression:
        """Returns the integers between two bounds, of at most MAX_DIGITS digits."""
        return self._signed(self._whole, low and _integer_above(low), high and _integer_below(high))

    def numbers(self, low: Bound | None = None, high: Bound | None = None) -> Expression:
        """Returns the numbers between two bounds; an exponent of two digits only where there are none."""
        table = self._table
        if low is None and high is None:
            fraction = table.optional(table.sequence(self._point, table.repeat(self._any_digit, 1, MAX_DIGITS)))
            sign = table.optional(table.byte(1 << ord("+") | 1 << ord("-")))
            exponent = table.sequence(table.literal(b"e"), sign, table.repeat(self._any_digit, 1, 2))
            minus = table.optional(table.literal(b"-"))
            written = table.sequence(minus, self._whole, fraction, table.optional(exponent))
            return table.intersection([written, table.complement(_negative_zeros(table))])
        # No more digits in all than a double can hold apart, or it might be rounded over a bound.
        digits = table.repeat(table.sequence(self._any_digit, table.optional(self._point)), 1, MAX_DIGITS)
        return self._signed(table.intersection([table.sequence(self._whole, self._fraction), digits]), low, high)

    def _signed(self, written: Expression, low: Bound | None, high: Bound | None) -> Expression:
        """Returns the numbers between bounds whose magnitude is written in some way."""
        table, zero = self._table, Bound(Decimal(0), is_open=True)
        if low is not None and high is not None and low.value > high.value:
            return table.empty
        found = []
        if high is None or high.value > 0 or (high.value == 0 and not high.is_open):
            bounds = [] if low is None or low.value < 0 else [self._magnitude(low, is_lower=True)]
            bounds += [] if high is None else [self._magnitude(high, is_lower=False)]
            found.append(table.intersection([written, *bounds]))
        if low is None or low.value < 0:
            above = zero if high is None or high.value >= 0 else Bound(-high.value, high.is_open)
            bounds = [self._magnitude(above, is_lower=True)]
            bounds += [] if low is None else [self._magnitude(Bound(-low.value, low.is_open), is_lower=False)]
            found.append(table.sequence(table.literal(b"-"), table.intersection([written, *bounds])))
        return table.alternative(found)

    def _magnitude(self, bound: Bound, *, is_lower: bool) -> Expression:
        """Returns the decimals, without a sign or leading zeros, on one side of a bound that is not negative."""
        table = self._table
        whole, _, fraction = format(abs(bound.value), "f").partition(".")
        tail = self._fractions(fraction.rstrip("0"), is_open=bound.is_open, is_lower=is_lower)
        for at in reversed(range(len(whole))):
            digit = int(whole[at])
            better = self._digits(digit + 1, 9) if is_lower else self._digits(0, digit - 1)
            left = len(whole) - at - 1
            rest = table.sequence(better, table.repeat(self._any_digit, left, left), self._fraction)
            tail = table.alternative([table.sequence(self._digits(digit, digit), tail), rest])
        if is_lower:
            lengths = table.repeat(self._any_digit, len(whole) + 1)
        elif len(whole) > 1:
            lengths = table.repeat(self._any_digit, 1, len(whole) - 1)
        else:
            return tail
        return table.alternative([tail, table.sequence(lengths, self._fraction)])

    def _fractions(self, digits: str, *, is_open: bool, is_lower: bool) -> Expression:
        """Returns what may follow the whole part of a bound; `digits` are those of its fraction, the last one not 0."""
        table = self._table
        zeros, any_digits = table.repeat(self._digits(0, 0)), table.repeat(self._any_digit)
        if is_lower:
            tail = table.sequence(zeros, self._digits(1, 9), any_digits) if is_open else any_digits
        else:
            tail = table.empty if is_open else zeros
        for at in reversed(range(len(digits))):
            digit = int(digits[at])
            better = self._digits(digit + 1, 9) if is_lower else self._digits(0, digit - 1)
            options = [table.sequence(self._digits(digit, digit), tail), table.sequence(better, any_digits)]
            # Fewer digits than a bound has are less.
            tail = table.alternative(options if is_lower or at == 0 else [table.epsilon, *options])
        if not digits:
            tail = table.intersection([tail, table.repeat(self._any_digit, 1)])
        written = table.sequence(self._point, tail)
        is_within = not is_lower if digits else not is_open
        return table.optional(written) if is_within else written

    def _digits(self, low: int, high: int) -> Expression:
        return self._table.byte(byte_range(ord("0") + low, ord("0") + high) if low <= high else 0)


def _negative_zeros(table: Expressions) -> Expression:
    zeros = table.optional(table.sequence(table.literal(b"."), table.repeat(table.literal(b"0"), 1)))
    exponent = table.optional(table.sequence(table.literal(b"e"), table.anything))
    return table.sequence(table.literal(b"-0"), zeros, exponent)


def _integer_above(bound: Bound) -> Bound:
    value = bound.value.to_integral_value(ROUND_CEILING)
    return Bound(value + 1 if bound.is_open and value == bound.value else value)


def _integer_below(bound: Bound) -> Bound:
    value = bound.value.to_integral_value(ROUND_FLOOR)
    return Bound(value - 1 if bound.is_open and value == bound.value else value)
