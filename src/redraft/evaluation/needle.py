"""A needle in a growing context: one fact among filler sentences, at every depth of every length."""

import itertools
import random
from collections.abc import Callable, Sequence

from redraft.evaluation.cases import Case

FILLER = (
    "The tram was late again, and nobody at the stop seemed to mind.",
    "Somebody had left a green umbrella in the reading room.",
    "In spring the river takes the lower path, so people walk along the wall.",
    "The baker opens early and closes when the shelves are empty.",
    "Two of the lamps in the corridor have been flickering since autumn.",
    "Most visitors ask for the way to the old observatory.",
    "The choir meets upstairs, the chess club in the cellar.",
    "It rained through the night, but the square was dry by noon.",
    "The caretaker waters the plants on the stairs and talks to them.",
    "A sign at the gate says that the garden is closed for the winter.",
    "The library keeps its maps in drawers that stick in wet weather.",
    "On the last page somebody had drawn a very small boat.",
)
FORMS = {
    "question": "{text}\n\nWhat is the amount that was paid to {name}? Write only the amount.",
    "extract": "Extract name, amount as JSON: {text}",
}
"""Prompts for the fact: a question, or the form that the bundled model knows."""
ANSWERS = {"question": "{amount}", "extract": '{{"name": "{name}", "amount": "{amount}"}}'}


def check_needle(lengths: Sequence[int], depths: Sequence[float], form: str) -> None:
    """Raises ValueError for an unknown form and for lengths and depths out of range."""
    if form not in FORMS:
        raise ValueError(f"the form is {form!r}, must be one of {', '.join(FORMS)}")
    if min(lengths) < 1:
        raise ValueError(f"a length is {min(lengths)}, must be at least 1 token")
    if bad := [depth for depth in depths if not 0 <= depth <= 1]:
        raise ValueError(f"a depth is {bad[0]}, must lie between 0 and 1")


def needle_cases(
    lengths: Sequence[int], depths: Sequence[float], form: str, count_tokens: Callable[[str], int], seed: int = 0
) -> list[Case]:
    """Returns a case for each length (of the prompt, in tokens, roughly) and depth (0: its beginning, 1: its end)."""
    check_needle(lengths, depths, form)
    cases = []
    for length, depth in itertools.product(lengths, depths):
        rng = random.Random(f"needle/{length}/{depth}/{seed}")
        name = f"{rng.choice(('Ana', 'Piet', 'Marta', 'Lena'))} {rng.choice(('Kovacs', 'Jansen', 'Silva', 'Berg'))}"
        amount = f"{rng.randint(10, 999)}.{rng.randint(10, 99)} EUR"
        needle = f"On that day {amount} was paid to {name}."
        cost = count_tokens(FORMS[form].format(text=needle, name=name))
        filler: list[str] = []
        while cost < length:
            filler.append(rng.choice(FILLER))
            cost += count_tokens(" " + filler[-1])
        filler.insert(round(depth * len(filler)), needle)
        prompt = FORMS[form].format(text=" ".join(filler), name=name)
        answer = ANSWERS[form].format(name=name, amount=amount)
        cases.append(Case(prompt, answer, group=f"{length} tokens, depth {depth:g}"))
    return cases


def score_needle(case: Case, text: str) -> dict[str, float]:
    """Scores an answer. exact: it is the right one; found: it contains the amount."""
    amount = case.answer.split('"amount": "')[-1].removesuffix('"}')
    return {"exact": float(text.strip() == case.answer), "found": float(amount in text)}
