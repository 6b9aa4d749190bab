"""Values that texts have: each reading of a number."""

from decimal import Decimal

import pytest

from redraft.text.prompts.values import numbers_in


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("1.234", "1234 1.234"), ("1.5", "1.5"), ("1.234,50", "1234.50"), ("5'841'645", "5841645 5841.645"),
     ("on 3 March 2024", "3 2024"), ("43 545,00 kr", "43 545.00 43545.00"), ("43 545:50 kr", "43 545 50 43545.50"),
     (".5 kg", "5 .5"), ("none", "")],
)  # fmt: skip
def test_numbers_are_read_in_each_way(text: str, numbers: str):
    assert numbers_in(text) == set(map(Decimal, numbers.split()))
