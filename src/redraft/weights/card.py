"""The optional `redraft.json` of a checkpoint: its purpose, its limits and prompts to try."""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from redraft.text.checks import MAX_LISTED, fields_in_words
from redraft.text.prompts.conversation import Message, last_request, without_empty_instructions
from redraft.text.prompts.forms import PromptForm, PromptTask, has_words
from redraft.text.prompts.wording import lead_of_next, read_fields, read_request
from redraft.utils.files import write_whole
from redraft.utils.json_files import json_bytes, read_json_object

CARD_FILE = "redraft.json"
MAX_COMPARED = 200
"""Characters of a prompt's beginning that are compared with forms."""
INSTRUCTING = ("system", "developer")
"""The roles of messages that say what is asked of others."""
FORM_SIMILARITY = 0.6
FIELD_SIMILARITY = 0.75
"""What two texts must have in common for one to be meant by the other: short names, all but a letter or two."""

_FORMAT = re.compile(r"(\w[\w ]{0,40} (?:as|in)) ([^\n]{1,40}?): ")
"""What asks for a value in a format, and the format."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """A short description of a model.

    `purpose` is one line on what it is for, `limits` one line on what it cannot do, `examples` are prompts that it
    answers well, and `example_names` what to call each of them in a word or two, for all of them or for none. `fields`
    are the names of values that it can extract, by the kind of text that they are found in. A `single_turn` model was
    not trained on conversations of several turns. `prompt_forms` are the forms of all prompts that it was trained on,
    as `redraft.text.prompts.forms` reads them, and `max_prompt_tokens` the length of the longest; where there is none,
    nothing is known. With `open_wording` a prompt in no form, and a field that is not listed, may be as good.
    `refusal` is what it answers to prompts of other kinds, `recipe` names the recipe whose data it was trained on, and
    `mode` is how a server writes its answers where nobody says how; "" is by diffusion.

    `object_form` is the form, with `{fields}` and `{text}`, in which it is asked for the fields of one record: of each
    item of a text where an array is asked for, and wherever a request is worded in no form but clear; "" leaves every
    prompt as it is. Of a text of more than `window_words` words it is then asked about windows of so many, too.
    """

    purpose: str = ""
    limits: str = ""
    examples: tuple[str, ...] = ()
    example_names: tuple[str, ...] = ()
    fields: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    single_turn: bool = False
    prompt_forms: tuple[str, ...] = ()
    max_prompt_tokens: int | None = None
    open_wording: bool = False
    refusal: str = ""
    recipe: str = ""
    mode: str = ""
    object_form: str = ""
    window_words: int | None = None

    def select(self, messages: Sequence[Message]) -> tuple[list[Message], list[str]]:
        """Returns what of a conversation the model was trained to answer, with a warning where anything is left out.

        Instructions that are empty count as absent.
        """
        said = without_empty_instructions(messages)
        return last_request(said) if self.single_turn else (said, [])

    def task_of(self, prompt: str) -> PromptTask | None:
        """Returns what a prompt asks for, from the first form that it has, else from its words; None if not known."""
        found = next((task for form in self._forms if (task := form.read(prompt)) is not None), None)
        return read_request(prompt) if found is None and self.object_form else found

    def task_in(self, messages: Sequence[tuple[str, str]]) -> PromptTask | None:
        """Returns what the last message of a conversation asks for, by itself or as an earlier one says.

        messages: role and text of each. None where it is not known.
        """
        *earlier, (_, text) = messages
        if (task := self.task_of(text)) is not None or not self.object_form or self.single_turn:
            return task
        for role, said in reversed(earlier):
            if role in INSTRUCTING and (asked := read_fields(said)) is not None:
                return asked.of_text(text)
            if role == "user" and (lead := lead_of_next(text)) and (asked := self.task_of(said)) is not None:
                return asked.of_text(text, lead)
        return None

    def put(self, prompt: str, task: PromptTask | None) -> str:
        """Returns what the model is asked in place of a prompt. task: what `task_of` says of that."""
        if task is None:
            return prompt
        if task.is_reworded and not task.is_array:
            return self.form_of_objects.fill(task.fields, task.text)
        return task.tidied(prompt)

    @cached_property
    def form_of_objects(self) -> PromptForm:
        """`object_form`, read; ValueError for a card without one."""
        return PromptForm(self.object_form)

    def prompt_warnings(self, task: PromptTask | None, role: str, num_tokens: int, prompt: str = "") -> Iterator[str]:
        """Yields a sentence for each thing in which a prompt is not like those that the model was trained on.

        task: what `task_of` says of it. role, num_tokens, prompt: of the prompt, its text last.
        """
        if self.single_turn and role != "user":
            yield f"the prompt has the role {role!r}: this model was trained on messages of role 'user'"
        if self.max_prompt_tokens is not None and num_tokens > self.max_prompt_tokens:
            yield (
                f"the prompt has {num_tokens} tokens: this model was trained on at most {self.max_prompt_tokens}; give "
                "it a shorter text, or one part at a time"
            )
        if self.prompt_forms and task is None and not self.open_wording:
            yield (
                f"the prompt has no form that this model was trained on, such as {self._nearest_form(prompt)!r}: "
                "`redraft examples` lists them"
            )
        if (
            self.open_wording
            and task is None
            and (found := _FORMAT.match(prompt.strip()))
            and found[1] in self._formats
        ):
            known = ", ".join(map(repr, self._formats[found[1]]))
            yield f"this model was not trained on {found[1]!r} with {found[2]!r}, only with {known}"
        if task is not None and not has_words(task.text):
            yield "the prompt has no text after its request: there is nothing to answer from"
        if task is not None and task.names_missing:
            yield "the prompt names no field: keys of an answer are made up; name those that you want"
        asked = Counter(() if task is None else task.fields)
        if (
            not self.open_wording
            and self._known_fields
            and (unknown := [name for name in asked if name not in self._known_fields])
        ):
            near = self._near(unknown)
            meant = f"; the nearest {'is' if len(near) == 1 else 'are'} {', '.join(map(repr, near))}" if near else ""
            listed = "`redraft fields` lists what it knows"
            joined = any(" and " in name or ";" in name for name in unknown)
            apart = "; fields are separated by commas" if joined else ""
            yield f"this model was not trained on the {fields_in_words(unknown)}: {listed}{meant}{apart}"
        if repeated := [name for name, count in asked.items() if count > 1]:
            yield f"the prompt asks more than once for the {fields_in_words(repeated)}: once is enough"

    def _nearest_form(self, prompt: str) -> str:
        """Returns the form whose request is most like a prompt's; the first where none is much like it."""
        request = prompt.strip()[:MAX_COMPARED].partition(":")[0]
        compared = SequenceMatcher(b=request, autojunk=False)

        def similarity(form: str) -> float:
            compared.set_seq1(form.partition("{text}")[0].strip(" :"))
            return compared.ratio()

        nearest = max(self.prompt_forms, key=similarity)
        return nearest if similarity(nearest) >= FORM_SIMILARITY else self.prompt_forms[0]

    def _near(self, names: Sequence[str]) -> list[str]:
        """Returns the known fields that share most words with each of some names, or else most of their letters.

        'order_id' for "order number", 'name' for "nme".
        """
        fields = sorted(self._known_fields, key=lambda field: (len(field), field))
        known = [(field, _words(field)) for field in fields]
        found: dict[str, None] = {}
        for name in names[:MAX_LISTED]:
            words = _words(name)
            nearest, shared = max(known, key=lambda one: len(one[1] & words))
            alike = [nearest] if shared & words else get_close_matches(name.lower(), fields, 1, FIELD_SIMILARITY)
            found |= dict.fromkeys(alike)
        return list(found)

    def knows(self, task: PromptTask | None, warnings: Sequence[str]) -> bool | None:
        """Returns whether a prompt is like those of training, by what the others tell of it; None if nobody knows."""
        if warnings:
            return False
        return True if task is not None else None

    @cached_property
    def _formats(self) -> dict[str, list[str]]:
        """The formats that forms ask for, by what stands before them, as in "Write the date as YYYY-MM-DD: {text}"."""
        found: dict[str, list[str]] = {}
        for form in self.prompt_forms:
            if (match := _FORMAT.match(form)) and "{" not in match[0] and form == f"{match[0]}{{text}}":
                found.setdefault(match[1], []).append(match[2])
        return found

    @cached_property
    def _forms(self) -> list[PromptForm]:
        return [PromptForm(form) for form in self.prompt_forms]

    @cached_property
    def _known_fields(self) -> frozenset[str]:
        return frozenset(name for of_kind in self.fields.values() for name in of_kind)


def write_card(folder: Path, card: Card) -> None:
    write_whole(folder / CARD_FILE, json_bytes(dataclasses.asdict(card)))


def read_card(folder: Path) -> Card:
    """Reads the card in a checkpoint's folder; an empty one if there is none. Raises ValueError if it is malformed."""
    path = folder / CARD_FILE
    if not path.exists():
        return Card()
    values = read_json_object(path)
    purpose, limits = values.get("purpose", ""), values.get("limits", "")
    single_turn, fields = values.get("single_turn", False), values.get("fields", {})
    if not isinstance(purpose, str) or not isinstance(limits, str) or not isinstance(single_turn, bool):
        raise ValueError(f"{path}: purpose and limits must be strings and single_turn true or false")
    recipe, open_wording = values.get("recipe", ""), values.get("open_wording", False)
    refusal, mode = values.get("refusal", ""), values.get("mode", "")
    if not isinstance(recipe, str) or not isinstance(refusal, str) or not isinstance(open_wording, bool):
        raise ValueError(f"{path}: recipe and refusal must be strings and open_wording true or false")
    if not isinstance(mode, str):
        raise ValueError(f"{path}: mode is {mode!r}, must be a string")
    examples = _strings(values.get("examples", []), f"{path}: examples")
    names = _strings(values.get("example_names", []), f"{path}: example_names")
    if names and len(names) != len(examples):
        raise ValueError(
            f"{path}: there are {len(names)} example_names for {len(examples)} examples; name each, or none"
        )
    if not isinstance(fields, dict):
        raise ValueError(f"{path}: fields must be an object, with a list of strings for each kind of text")
    forms = _strings(values.get("prompt_forms", []), f"{path}: prompt_forms")
    object_form = values.get("object_form", "")
    if not isinstance(object_form, str) or (object_form and "{fields}" not in object_form):
        raise ValueError(f"{path}: object_form is {object_form!r}, must be a form with {{fields}} and {{text}}")
    try:
        for form in (*forms, *([object_form] if object_form else [])):
            PromptForm(form)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return Card(
        purpose=purpose,
        limits=limits,
        examples=examples,
        example_names=names,
        fields={kind: _strings(of_kind, f"{path}: fields.{kind}") for kind, of_kind in fields.items()},
        single_turn=single_turn,
        prompt_forms=forms,
        max_prompt_tokens=_count(values, "max_prompt_tokens", path),
        open_wording=open_wording,
        refusal=refusal,
        recipe=recipe,
        mode=mode,
        object_form=object_form,
        window_words=_count(values, "window_words", path),
    )


def _count(values: Mapping[str, Any], name: str, path: Path) -> int | None:
    most = values.get(name)
    if most is not None and (type(most) is not int or most < 1):
        raise ValueError(f"{path}: {name} is {most!r}, must be a whole number above 0, or null")
    return most


def _words(name: str) -> frozenset[str]:
    return frozenset(re.findall(r"[^\W_]+", name.lower()))


def _strings(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{where} must be a list of strings")
    return tuple(value)
