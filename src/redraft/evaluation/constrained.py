"""The constraints of the shipped tasks: what a prompt asks for, as a language that its answer is held to."""

import re
from typing import Any

from redraft.text.prompts.forms import PromptTask

_DAY = {"DD": r"(0[1-9]|[12]\d|3[01])", "D": r"([1-9]|[12]\d|3[01])"}
_MONTH = r"(January|February|March|April|May|June|July|August|September|October|November|December)"
_DATE = {"YYYY": r"\d{4}", "MM": r"(0[1-9]|1[0-2])", **_DAY, "Month": _MONTH}
FORMS = {
    "date": _DATE,
    "time": {"HH": r"([01]\d|2[0-3])", "MM": r"[0-5]\d", "h:MM": r"([1-9]|1[0-2]):[0-5]\d", "am/pm": "(am|pm)"},
    "amount": {
        "0,000.00": r"([1-9]\d{0,2}(,\d{3})*|0)\.\d\d",
        "0.000,00": r"([1-9]\d{0,2}(\.\d{3})*|0),\d\d",
        "0.00": r"([1-9]\d*|0)\.\d\d",
        "CUR": "[A-Z]{3}",
    },
    "phone": {
        "E.164": r"\+[1-9]\d{6,14}",
        "00 and digits": r"00[1-9]\d{6,14}",
        "CC": r"[1-9]\d{0,2}",
        "NUMBER": r"\d{4,14}",
    },
}
"""The parts that the forms of each kind are made of, as patterns. Of those that begin alike the longest is meant."""
QUANTITY = r"([1-9]\d*|0)(\.\d*[1-9])?"
_AS, _IN = re.compile(r"Write the (\w+) as (.+?): "), re.compile(r"Write the (\w+) in (\S+): ")


def form_pattern(kind: str, form: str) -> str:
    """Returns the pattern of a form such as DD.MM.YYYY. KeyError for a kind that has no forms."""
    parts = FORMS[kind]
    found = re.split(f"({'|'.join(map(re.escape, sorted(parts, key=len, reverse=True)))})", form)
    return "".join(parts.get(part) or re.escape(part) for part in found)


def constraint_of(task: PromptTask | None, prompt: str) -> dict[str, Any]:
    """Returns what the answer to a prompt must be: an object of the fields it asks for, or a value in a form.

    As arguments of `Model.generate`.

    Raises ValueError for a prompt that asks for neither.
    """
    if task is not None and task.fields:
        return {"schema": task.schema}
    if (found := _AS.match(prompt)) and found[1] in FORMS:
        return {"regex": form_pattern(found[1], found[2])}
    if found := _IN.match(prompt):
        return {"regex": f"{QUANTITY} {re.escape(found[2])}"}
    raise ValueError(f"the prompt {prompt[:60]!r} asks for no fields and no form: leave out --constrained")
