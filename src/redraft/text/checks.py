"""What can be told of a finished answer without another model: whether it is cut, and whether it is what was asked for.

Each finding is one sentence with the value in it. Nothing here knows of a model: who reads prompts says what they ask.
"""

import datetime
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal

from redraft.text.characters import comparable
from redraft.text.prompts.values import numbers_in
from redraft.text.trust.places import Place, find, find_whole
from redraft.utils.words import counted

MAX_SHOWN = 60
"""Characters of a value that are shown."""

MAX_LISTED = 8
"""Names that are listed, of many."""

ANOTHER_SEED = "try another seed"
HOLD_IT = "hold it to the fields that the prompt asks for (schema_from_prompt, or --schema-from-prompt)"
"""The ways out of an answer that depends on its seed, and of one that does not."""


def check_end(num_tokens: int, finish_reason: str, steps_per_canvas: Sequence[int], max_steps: int) -> Iterator[str]:
    """Yields a sentence for an answer that is cut, and one for canvases that took all the steps that they may take."""
    if finish_reason == "length":
        tokens = counted(num_tokens, "token")
        yield f"the answer is cut after {tokens}: the limit on new tokens, or the model's context, ends it"
    unsettled = [str(at) for at, taken in enumerate(steps_per_canvas, start=1) if taken >= max_steps]
    if unsettled:
        which = f"canvas {unsettled[0]}" if len(unsettled) == 1 else f"canvases {_listed(unsettled)}"
        steps = counted(max_steps, "step")
        yield f"{which} took all of {steps} and may be unfinished: allow more steps, or {ANOTHER_SEED}"


def check_fields(
    answer: str,
    fields: Sequence[str],
    text: str,
    *,
    is_known: bool = True,
    is_array: bool = False,
    way_out: str = ANOTHER_SEED,
) -> Iterator[str]:
    """Yields a sentence for each thing in which an answer is not a JSON object of `fields` with values from `text`.

    A field that is asked for twice may be answered twice. is_known: whether the model was trained on such prompts;
    where it was not, nothing brings a field. is_array: whether the answer is to be an array of such objects. way_out:
    what may bring another answer, "" for nothing.
    """
    way_out = f": {way_out}" if way_out else ""
    try:
        found = json.loads(answer, object_pairs_hook=_Pairs, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        yield f"the answer {brief(answer)} is not valid JSON ({_reason(error)}){way_out}"
        return
    objects = found if is_array else [found]
    if isinstance(found, _Pairs) is is_array or not all(isinstance(one, _Pairs) for one in objects):
        wanted = "an array of objects" if is_array else "an object"
        yield f"the answer {brief(answer)} is JSON but not {wanted} with the fields asked for{way_out}"
        return
    for number, pairs in enumerate(objects, start=1):
        name = f"item {number} of the answer" if is_array else "the answer"
        yield from _check_object(pairs, Counter(fields), text, name, way_out=way_out if is_known else "")


def check_keys(answer: str) -> Iterator[str]:
    """Yields a sentence for an answer that is JSON with an object in which a key occurs more than once."""
    repeated: list[str] = []

    def note(pairs: list[tuple[str, object]]) -> None:
        repeated.extend(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)

    try:
        json.loads(answer, object_pairs_hook=note)
    except (ValueError, RecursionError):
        return
    if repeated:
        yield _said_of_repeated("the answer", list(dict.fromkeys(repeated)))


def check_named(answer: str, said: str) -> Iterator[str]:
    """Yields a sentence for an answer that is a JSON object with keys that do not stand in what was said."""
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        return
    named = comparable(said)
    if isinstance(found, dict) and (others := [key for key in found if comparable(key) not in named]):
        yield f"the answer has the {fields_in_words(others)}, which the prompt does not name"


def check_date(answer: str) -> Iterator[str]:
    """Yields a sentence for an answer that looks like a date, of a day that the calendar does not have."""
    if re.fullmatch(r"\d{4}-\d\d-\d\d", written := answer.strip()):
        try:
            datetime.date.fromisoformat(written)
        except ValueError:
            yield f"there is no day {written}: check the date in the text"


def _said_of_repeated(name: str, keys: Sequence[str]) -> str:
    return f"{name} has the {fields_in_words(keys)} more than once: readers of JSON take one of the values"


def _check_object(pairs: "_Pairs", expected: Counter[str], text: str, name: str, *, way_out: str) -> Iterator[str]:
    found = Counter(key for key, _ in pairs)
    missing, others = [key for key in expected if key not in found], [key for key in found if key not in expected]
    # A list does not tell "make and model", one name, from two.
    joined = [(one, key) for one in others for key in missing if re.search(rf"\b{re.escape(key)}\b", one)]
    if missing := [key for key in missing if all(key != part for _, part in joined)]:
        yield f"{name} lacks the {fields_in_words(missing)}{way_out}"
    if others := [key for key in others if all(key != whole for whole, _ in joined)]:
        yield f"{name} has the {fields_in_words(others)}, not asked for"
    if repeated := [key for key in expected if found[key] > expected[key]]:
        yield _said_of_repeated(name, repeated)
    places: dict[str, tuple[Place, ...]] = {}
    for key, value in pairs:
        if key not in expected:
            continue
        if not _is_of(value, text):
            yield f"the value {brief(value)} of the field {brief(key)} does not stand in the text: check it"
        elif isinstance(value, str) and find(value, text):
            places[value] = find_whole(value, text)
            if not places[value]:
                cut = "is cut out of a longer word or number"
                yield f"the value {brief(value)} of the field {brief(key)} {cut}: check it"
    for value, found_at in places.items():
        owners = list(dict.fromkeys(key for key, own in pairs if own == value and key in expected))
        if found_at and len(owners) > len(found_at):
            times = "once" if len(found_at) == 1 else f"{len(found_at)} times"
            yield f"the {fields_in_words(owners)} have one value, which stands in the text {times}: check them"


def check_controls(spelled: Sequence[str]) -> Iterator[str]:
    """Yields a sentence if the texts of a prompt spell out control tokens."""
    if spelled:
        token, them = ("token", "it") if len(spelled) == 1 else ("tokens", "them")
        named = _listed([brief(one) for one in spelled])
        yield (
            f"the prompt spells out the control {token} {named}: the model reads {them} as plain characters, which it "
            f"hardly knows; leave {them} out"
        )


def _is_of(value: object, text: str) -> bool:
    """Returns whether a field's value stands in a text, as far as texts have such values."""
    if isinstance(value, str):
        return is_in(value, text)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return not is_number or abs(Decimal(repr(value))) in numbers_in(text)


def is_in(value: str, text: str) -> bool:
    """Returns whether a value stands in a text, in whatever form its accents, spaces and quotation marks are."""
    return value in text or comparable(value) in comparable(text)


def brief(value: object) -> str:
    """Returns a value's representation on one line, cut where it is long; a text keeps its quotation marks."""
    shown = repr(value)
    mark = shown[0] if isinstance(value, str) else ""
    return shown if len(shown) <= MAX_SHOWN else f"{shown[: MAX_SHOWN - 3 - len(mark)]}...{mark}"


def fields_in_words(names: Sequence[str]) -> str:
    """Returns the names of fields in words: "field 'a'", or "fields 'a', 'b'"."""
    return f"{'field' if len(names) == 1 else 'fields'} {_listed([brief(name) for name in names])}"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MAX_LISTED
    return ", ".join(names[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")


class _Pairs(list[tuple[str, object]]):
    """The keys and values of a JSON object, repeated keys included."""


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not a JSON value")


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        # Some of its messages end in "at" already.
        message = f"{error.msg[:1].lower()}{error.msg[1:]}".removesuffix(" at")
        return f"{message} at character {error.pos + 1}"
    return "too deep" if isinstance(error, RecursionError) else str(error)
