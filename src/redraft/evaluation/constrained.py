"""The constraints of the shipped tasks: what a prompt asks for, as a language that its answer is held to."""

import json
import re

from redraft.api import Model, Prompt
from redraft.constraints.build import AutomatonCache, ConstraintSpec
from redraft.constraints.tokens import TokenAutomaton
from redraft.constraints.vocabulary import Vocabulary
from redraft.text.prompts.conversation import text_of
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


def constraint_of(task: PromptTask | None, prompt: str) -> ConstraintSpec:
    """Returns what the answer to a prompt must be: an object of the fields it asks for, or a value in a form.

    Raises ValueError for a prompt that asks for neither.
    """
    if task is not None and task.fields:
        properties = {name: {"type": ["string", "null"]} for name in task.fields}
        schema = {"type": "object", "properties": properties, "required": list(properties)}
        return ConstraintSpec(kind="json_schema", text=json.dumps(schema))
    if (found := _AS.match(prompt)) and found[1] in FORMS:
        return ConstraintSpec(kind="regex", text=form_pattern(found[1], found[2]))
    if found := _IN.match(prompt):
        return ConstraintSpec(kind="regex", text=f"{QUANTITY} {re.escape(found[2])}")
    raise ValueError(f"the prompt {prompt[:60]!r} asks for no fields and no form: leave out --constrained")


class TaskConstraints:
    """The automata of prompts, for a model's vocabulary."""

    def __init__(self, model: Model) -> None:
        config = model.transformer.config
        tokens = model.tokenizer.all_token_bytes(config.vocab_size)
        self._vocabulary = Vocabulary(
            tokens.tokens, end_ids=config.eos_ids, strips_first_space=tokens.strips_first_space
        )
        self._card, self._cache = model.card, AutomatonCache()

    def of(self, prompt: Prompt) -> TokenAutomaton:
        """Returns the automaton of a prompt. Raises ValueError for one that asks for no form."""
        text = prompt if isinstance(prompt, str) else text_of(prompt[-1])
        return self._cache.get(constraint_of(self._card.task_of(text), text), self._vocabulary)
