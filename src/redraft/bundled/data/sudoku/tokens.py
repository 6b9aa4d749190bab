"""The tokens of the Sudoku model: a digit each in the answer, a cell with what it holds each in the prompt.

Attention knows how far apart two tokens are, not where they stand. So a cell's place is in its prompt: the token of
cell B3 with a 5 is "B3=5", and stands as far before the canvas's cell B3 as every other one before its own.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from redraft.bundled.data.sudoku.puzzles import CELLS, SIDE
from redraft.utils.files import write_whole

SPECIAL_TOKENS = ("<pad>", "<eos>", "<bos>", "<unk>")
PAD, EOS, BOS, UNKNOWN = range(len(SPECIAL_TOKENS))
FIRST_DIGIT = len(SPECIAL_TOKENS) - 1
"""The id of digit d is FIRST_DIGIT + d."""
FIRST_CELL = FIRST_DIGIT + SIDE + 1
VALUES = SIDE + 1
VOCAB_SIZE = FIRST_CELL + CELLS * VALUES
PROMPT_TOKENS = 1 + CELLS
ANSWER_TOKENS = CELLS + 1

# The last 81 digits and dots of the message are the puzzle, whatever is said before it.
CHAT_TEMPLATE = """{{ bos_token }}{% set found = namespace(cells='', number=0) %}\
{% for character in messages[-1]['content'] %}{% if character in '123456789.' %}\
{% set found.cells = found.cells ~ character %}{% endif %}{% endfor %}\
{% for value in found.cells[-81:] %}{{ 'ABCDEFGHI'[found.number // 9] }}{{ found.number % 9 + 1 }}={{ value }}\
{% set found.number = found.number + 1 %}{% endfor %}"""


def digit_token(digit: int) -> int:
    """Returns the id of a digit, 1 to 9."""
    return FIRST_DIGIT + digit


def cell_token(cell: int, digit: int) -> int:
    """Returns the id of a cell that holds a digit, or nothing: 0."""
    return FIRST_CELL + cell * VALUES + digit


def prompt_tokens(grid: Sequence[int]) -> tuple[int, ...]:
    """Returns a grid's prompt, as the chat template writes it."""
    return (BOS, *(cell_token(cell, digit) for cell, digit in enumerate(grid)))


def make_tokenizer() -> Tokenizer:
    """Makes the tokenizer, whose whole vocabulary is known."""
    cells = (f"{'ABCDEFGHI'[cell // 9]}{cell % 9 + 1}={value}" for cell in range(CELLS) for value in ".123456789")
    texts = (*SPECIAL_TOKENS, *"123456789", *cells)
    vocabulary = {text: token for token, text in enumerate(texts)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL_TOKENS[UNKNOWN]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[A-I][1-9]=[1-9.]|[\s\S]"), behavior="isolated")
    # Tokens follow each other without spaces.
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def write_tokenizer(folder: Path) -> None:
    """Writes tokenizer.json, tokenizer_config.json and chat_template.jinja into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("pad_token", "eos_token", "bos_token", "unk_token")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **dict(zip(names, SPECIAL_TOKENS, strict=True))}
    write_whole(folder / "tokenizer_config.json", (json.dumps(config, indent=2) + "\n").encode())
    write_whole(folder / "chat_template.jinja", CHAT_TEMPLATE.encode())
    write_whole(folder / "tokenizer.json", make_tokenizer().to_str().encode())
