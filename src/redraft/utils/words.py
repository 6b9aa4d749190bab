"""Numbers and names as sentences and tables have them."""


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Returns the number and its noun: "1 row", "2 rows". `plural`: of a noun that does not take an s."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
