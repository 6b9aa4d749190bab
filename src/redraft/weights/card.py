"""The optional `redraft.json` of a checkpoint: its purpose, its limits and prompts to try."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from redraft.utils.files import write_whole
from redraft.utils.json_files import json_bytes, read_json_object

CARD_FILE = "redraft.json"


@dataclass(frozen=True, kw_only=True)
class Card:
    """A short description of a model.

    `purpose` is one line on what it is for, `limits` one line on what it cannot do, `examples` are prompts that it
    answers well, and `example_names` what to call each of them in a word or two, for all of them or for none. `fields`
    are the names of values that it can extract, by the kind of text that they are found in. A `single_turn` model was
    not trained on conversations of several turns. `recipe` names the recipe whose data it was trained on.
    """

    purpose: str = ""
    limits: str = ""
    examples: tuple[str, ...] = ()
    example_names: tuple[str, ...] = ()
    fields: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    single_turn: bool = False
    recipe: str = ""


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
    recipe = values.get("recipe", "")
    if not isinstance(recipe, str):
        raise ValueError(f"{path}: recipe must be a string")
    examples = _strings(values.get("examples", []), f"{path}: examples")
    names = _strings(values.get("example_names", []), f"{path}: example_names")
    if names and len(names) != len(examples):
        raise ValueError(
            f"{path}: there are {len(names)} example_names for {len(examples)} examples; name each, or none"
        )
    if not isinstance(fields, dict):
        raise ValueError(f"{path}: fields must be an object, with a list of strings for each kind of text")
    return Card(
        purpose=purpose,
        limits=limits,
        examples=examples,
        example_names=names,
        fields={kind: _strings(of_kind, f"{path}: fields.{kind}") for kind, of_kind in fields.items()},
        single_turn=single_turn,
        recipe=recipe,
    )


def _strings(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{where} must be a list of strings")
    return tuple(value)
