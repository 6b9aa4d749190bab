"""Numbers and names as sentences and tables have them."""


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Returns the number and its noun: "1 row", "2 rows", "3 passes". plural: where it takes neither s nor es."""
    regular = f"{noun}es" if noun.endswith(("s", "x", "ch", "sh")) else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural or regular}"


def counted_of(count: int, total: int, noun: str, verb: str, plural: str) -> str:
    """Returns how many of all, with the verb that follows: "1 of 5 rows was", "2 of 5 rows were"."""
    return f"{count:,} of {counted(total, noun)} {verb if count == 1 else plural}"
