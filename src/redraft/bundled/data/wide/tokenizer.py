"""The tokenizer of the next bundled model: as the first one's, with names cut where their words begin."""

from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer

from redraft.bundled.data.extraction.tokenizer import FUNCTION_WORDS, save_tokenizer, train_tokenizer
from redraft.bundled.data.wide.records import tokenizer_record

VOCAB_SIZE = 4096
RECORDS = 24_000

# No value starts with one of these, so they may include the space before them.
FOREIGN_WORDS = """und ist für mit auf im zum zur wir bitte nicht oder est pour avec votre vous nous dans sur une por
para con una del en los las che per il dei sono não com uma na het een voor van wij uw op na się jest""".split()

# As in the first tokenizer, pieces are never merged with what is between them. Here orderDate is order and Date, and
# the separators of arrays of objects are one token each, too.
PIECES = (
    r"""\[\{"|\{"|": "|", "|": null, "|": null\}, \{"|"\}, \{"|": null\}\]|": null\}|"\}\]|"\}| (?:"""
    + "|".join((*FUNCTION_WORDS, *FOREIGN_WORDS))
    + r""")(?![\w@./:-]*[\w@/_])"""
    + r"""|\p{Lu}?[\p{Ll}\p{M}]+|\p{Lu}+(?=\p{Lu}\p{Ll})|\p{Lu}+|\p{L}+|\p{N}| |\s|[^\s\p{L}\p{N}]"""
)


def make_tokenizer(vocab_size: int = VOCAB_SIZE, records: int = RECORDS) -> Tokenizer:
    """Trains the tokenizer on records without random words; always the same one."""
    return train_tokenizer(_texts(records), vocab_size, PIECES)


def write_tokenizer(folder: Path) -> None:
    """Trains the tokenizer and writes its files into `folder`."""
    save_tokenizer(make_tokenizer(), folder)


def _texts(records: int) -> Iterator[str]:
    for index in range(records):
        record = tokenizer_record(index)
        yield from (content for _, content in record.messages)
        yield record.answer
