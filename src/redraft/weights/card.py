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
    answers well. A `single_turn` model was not trained on conversations of several turns.
    """

    purpose: str = ""
    limits: str = ""
    examples: tuple[str, ...] = ()
    single_turn: bool = False


def write_card(folder: Path, card: Card) -> None:
    write_whole(folder / CARD_FILE, json_bytes(dataclasses.asdict(card)))


def read_card(folder: Path) -> Card:
    """Reads the card in a checkpoint's folder; an empty one if there is none. Raises ValueError if it is malformed."""
    path = folder / CARD_FILE
    if not path.exists():
        return Card()
    values = read_json_object(path)
    purpose, limits, examples = values.get("purpose", ""), values.get("limits", ""), values.get("examples", [])
    single_turn = values.get("single_turn", False)
    if not isinstance(purpose, str) or not isinstance(limits, str) or not isinstance(single_turn, bool):
        raise ValueError(f"{path}: purpose and limits must be strings and single_turn true or false")
    if not isinstance(examples, list) or not all(isinstance(example, str) for example in examples):
        raise ValueError(f"{path}: examples must be a list of strings")
    return Card(purpose=purpose, limits=limits, examples=tuple(map(str, examples)), single_turn=single_turn)
