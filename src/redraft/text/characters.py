"""Characters that many vocabularies cannot write, and the plainer ones that a model has seen instead.

Accented letters have two forms: composed, one character, and decomposed, a letter and a combining mark, as files from
macOS have them. Mails and office programs have spaces that do not break, curly quotation marks and minus signs where a
keyboard has a plain key, and on Windows lines end in two characters. Many tokenizers have pieces for one form alone,
and a model that was trained with such a tokenizer copies the others badly. So what has no token of its own becomes
plain on the way in. On the way out letters are decomposed, and apostrophes curly, where the prompt has them so and the
answer is held to no language.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable

# No language piles up more marks, and the time to put them in order grows with the square of their number.
_DECOMPOSED = re.compile("\\w[\u0300-\u036f\u3099\u309a]{1,8}")

_PLAIN = {
    **dict.fromkeys("\u0085\u2028\u2029", "\n"),
    **dict.fromkeys(
        "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000", " "
    ),
    **dict.fromkeys(
        "\u00ad\u200b\u2060\ufeff", ""
    ),  # invisible; joiners are not here: they are part of emoji and words
    **dict.fromkeys("\u2010\u2011\u2012\u2212", "-"),
    **dict.fromkeys("\u2018\u2019\u201a\u201b", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f", '"'),
    **{chr(wide): chr(wide - 0xFEE0) for wide in range(0xFF01, 0xFF5F)},  # as wide as Chinese characters
    **{chr(ligature): unicodedata.normalize("NFKC", chr(ligature)) for ligature in range(0xFB00, 0xFB07)},
}
"""What is read instead of a character without a token."""

# Text that was converted twice has several carriage returns before a line feed.
_NOT_PLAIN = re.compile(f"\r+\n|[{''.join(own for own in _PLAIN if len(own) == 1)}]")
CHANGED = re.compile(f"{_DECOMPOSED.pattern}|{_NOT_PLAIN.pattern}")
"""What may become plainer."""
_GIVEN_BACK = "'"
"""Of the plain characters only this one stands for the prompt's own in an answer: all others are also JSON's, or what
somebody asks for in a format."""


def _plain(own: str) -> str:
    return _PLAIN.get(own, "\n")


def writable(text: str, has_token: Callable[[str], bool]) -> str:
    """Returns a text with plainer characters, and composed letters, in place of those that have no token."""

    def plain(match: re.Match[str]) -> str:
        return match[0] if has_token(match[0]) else _plain(match[0])

    def composed(match: re.Match[str]) -> str:
        letter = match[0]
        return letter if all(map(has_token, letter[1:])) else unicodedata.normalize("NFC", letter)

    if text.isascii():
        return _NOT_PLAIN.sub(plain, text) if "\r\n" in text else text
    return _DECOMPOSED.sub(composed, _NOT_PLAIN.sub(plain, text))


def own_forms(texts: Iterable[str], has_token: Callable[[str], bool]) -> dict[int, str]:
    """Returns a table for `str.translate` from what `writable` makes of letters in some texts to what they were there.

    A letter that the texts have in several forms is left out: nobody knows which one is copied.
    """
    table: dict[int, str] = {}
    taken: set[str] = set()

    def add(made: str, own: str) -> None:
        if len(made) == 1 and table.setdefault(ord(made), own) != own:
            taken.add(made)

    for text in texts:
        # A text of ASCII alone has no other forms, but it has letters.
        taken |= set(text)
        for letter in set(_DECOMPOSED.findall(text)):
            add(writable(letter, has_token), letter)
        for own in {own for own in text if _PLAIN.get(own) == _GIVEN_BACK and not has_token(own)}:
            add(_PLAIN[own], own)
    return {code: own for code, own in table.items() if chr(code) not in taken}


def comparable(text: str) -> str:
    """Returns a text in one form: whatever form two texts have, equal ones are equal then."""
    return _NOT_PLAIN.sub(lambda match: _plain(match[0]), unicodedata.normalize("NFC", text))
