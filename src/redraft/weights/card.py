"""What a checkpoint says of itself in `redraft.json`: what it is for and what not, and prompts to try. Optional."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from redraft.utils.files import write_whole
from redraft.utils.json_files import json_bytes, read_json_object

CARD_FILE = "redraft.json"


@dataclass(frozen=True, kw_only=True)
class Card:
    """purpose: what it is for, one line; limits: what it can't do, one line; examples: prompts it is good at.

    single_turn: it was never shown a longer conversation.
    """

    purpose: str = ""
    limits: str = ""
    examples: tuple[str, ...] = ()
    single_turn: bool = False


def write_card(folder: Path, card: Card) -> None:
    """Writes a card into a checkpoint's folder."""
    write_whole(folder / CARD_FILE, json_bytes(dataclasses.asdict(card)))


def read_card(folder: Path) -> Card:
    """The card of a checkpoint's folder, an empty one where there is none. ValueError where it is malformed."""
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
