"""Accented letters in their two forms: composed, one character, and decomposed, a letter and a combining mark.

Both are the same text, and files from macOS, for one, are full of the second. Many tokenizers have pieces for the first
alone, and a model that was trained with such a tokenizer has never seen a mark on its own. So marks without a token of
their own are composed on the way in, and letters that a prompt has decomposed are decomposed again on the way out.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable

# No language piles up more marks, and the time to put them in order grows with the square of their number.
_DECOMPOSED = re.compile("\\w[\u0300-\u036f\u3099\u309a]{1,8}")


def compose(text: str, has_token: Callable[[str], bool]) -> str:
    """Returns a text with its decomposed letters composed, where a mark of theirs has no token."""
    if text.isascii():
        return text

    def composed(match: re.Match[str]) -> str:
        letter = match[0]
        return letter if all(map(has_token, letter[1:])) else unicodedata.normalize("NFC", letter)

    return _DECOMPOSED.sub(composed, text)


def own_forms(texts: Iterable[str], has_token: Callable[[str], bool]) -> dict[int, str]:
    """Returns a table for `str.translate` from the letters that `compose` makes of some texts to what they were there.

    A letter that the texts have in several forms is left out: nobody knows which one is copied.
    """
    table: dict[int, str] = {}
    taken: set[str] = set()
    for text in texts:
        if text.isascii():
            continue
        taken |= set(text)
        for letter in set(_DECOMPOSED.findall(text)):
            made = compose(letter, has_token)
            if len(made) == 1 and table.setdefault(ord(made), letter) != letter:
                taken.add(made)
    return {code: letter for code, letter in table.items() if chr(code) not in taken}
