"""Text from tokens that arrive in pieces: in the end exactly the text of decoding them all at once.

Two things make a token's text uncertain: characters whose UTF-8 bytes are spread over several tokens, and decoders that
look at neighbours. Byte-level tokens are bytes, so an incremental UTF-8 decoder is exact. Tokenizers with byte fallback
turn a whole run of byte tokens into replacement characters if one of them is wrong, so the text of a run is certain
only when the run has ended. Decoders that we do not know return everything at `finish`: late, but correct.
"""

import codecs
import json
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from tokenizers import Tokenizer

REPLACEMENT = "\ufffd"
# What the ByteFallback decoder reads as a byte; its parser of hexadecimal digits also takes a sign.
_BYTE_TOKEN = re.compile(r"<0x(?:[0-9A-Fa-f]{2}|\+[0-9A-Fa-f])>")

Streaming = Literal["bytes", "pieces", "whole"]


class Detokenizer:
    """An incremental decoder from token ids to text; its cost is linear in the tokens, however they are split.

    Ids in `skipped` have no text, and neither do gaps in the vocabulary.
    """

    def __init__(self, tokenizer: Tokenizer, *, vocab_size: int, skipped: Collection[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._skipped = frozenset(skipped)
        self._streaming = streaming(tokenizer)
        self._stream = self._fresh()

    def push(self, ids: Sequence[int]) -> str:
        """Takes more ids and returns the text that becomes certain, whole characters only.

        Raises ValueError, and takes none of them, if an id is outside the vocabulary.
        """
        check_ids(ids, self._vocab_size)
        kept = [token_id for token_id in ids if token_id not in self._skipped]
        pairs = [(token_id, self._tokenizer.id_to_token(token_id)) for token_id in kept]
        return self._stream.push([(token_id, token) for token_id, token in pairs if token is not None])

    def finish(self) -> str:
        """Returns the rest of the text; afterwards the detokenizer is ready for a new text."""
        rest = self._stream.finish()
        self._stream = self._fresh()
        return rest

    def _fresh(self) -> "_TextStream":
        if self._streaming == "bytes":
            return _ByteStream()
        if self._streaming == "pieces":
            return _PieceStream(self._tokenizer, is_open=lambda token: _BYTE_TOKEN.fullmatch(token) is not None)
        return _PieceStream(self._tokenizer, is_open=lambda token: True)


def streaming(tokenizer: Tokenizer) -> Streaming:
    """Returns how a tokenizer's decoder can run incrementally, judged by its configuration."""
    decoders = _decoders(tokenizer)
    kinds = [decoder["type"] for decoder in decoders]
    if kinds == ["ByteLevel"]:
        return "bytes"
    stripping = kinds.count("Metaspace") + kinds.count("Strip")
    if kinds and stripping <= 1 and all(_is_local(decoder) for decoder in decoders):
        return "pieces"
    return "whole"


def check_ids(ids: Sequence[int], vocab_size: int) -> None:
    """Raises ValueError on an id outside the vocabulary."""
    bad = next((token_id for token_id in ids if not 0 <= token_id < vocab_size), None)
    if bad is not None:
        raise ValueError(f"token id {bad} is outside the vocabulary, ids go from 0 to {vocab_size - 1}")


def display_text(tokenizer: Tokenizer, token_id: int, decoding: Streaming) -> str:
    """Returns a token's text inside a longer text: a leading space is kept; half a character is U+FFFD."""
    token = tokenizer.id_to_token(token_id)
    if token is None:
        return REPLACEMENT
    single = tokenizer.decode([token_id], skip_special_tokens=False)
    if decoding != "pieces" or _BYTE_TOKEN.fullmatch(token):
        return single
    return tokenizer.decode([token_id, token_id], skip_special_tokens=False)[len(single) :]


def byte_form(tokenizer: Tokenizer, token_id: int, decoding: Streaming) -> bytes:
    """Returns the bytes of a token inside a longer text."""
    token = tokenizer.id_to_token(token_id) or ""
    if decoding == "bytes":
        return _token_bytes(token)
    if decoding == "pieces" and _BYTE_TOKEN.fullmatch(token):
        return bytes([int(token[3:-1].lstrip("+"), 16)])
    return display_text(tokenizer, token_id, decoding).encode()


@dataclass(frozen=True)
class TokenBytes:
    """The bytes of every id inside a text, None for what has none, and whether a text loses a space at its start."""

    tokens: list[bytes | None]
    strips_first_space: bool


def all_byte_forms(tokenizer: Tokenizer, size: int) -> TokenBytes:
    """Returns the bytes of the ids below `size`: any of them, one after the other, decode to their bytes together.

    Raises ValueError for a decoder that does not read token by token.
    """
    decoders = _decoders(tokenizer)
    kinds = [decoder["type"] for decoder in decoders]
    decoding = streaming(tokenizer)
    # Whatever is replaced or stripped after bytes have been joined depends on neighbours.
    if decoding == "whole" or kinds != sorted(kinds, key=_DECODING_ORDER.index):
        raise ValueError(
            f"this tokenizer's decoder ({', '.join(kinds) or 'none'}) cannot be read token by token, which constraints "
            "need: use a tokenizer that is byte-level or has byte fallback"
        )
    tokens: list[bytes | None] = [None] * size
    for token, token_id in tokenizer.get_vocab(with_added_tokens=True).items():
        if token_id < size:
            tokens[token_id] = _token_bytes(token) if decoding == "bytes" else _piece_bytes(token, decoders)
    return TokenBytes(tokens, strips_first_space=any(map(_strips, decoders)))


_DECODING_ORDER = ["ByteLevel", "Metaspace", "Replace", "ByteFallback", "Fuse", "Strip"]


def _strips(decoder: dict[str, Any]) -> bool:
    """Tells whether a decoder removes a space at the start of a text."""
    match decoder:
        case {"type": "Strip", "start": 1, "content": " "}:
            return True
        case {"type": "Metaspace", "prepend_scheme": scheme}:
            return bool(scheme != "never")
    return False


def _piece_bytes(token: str, decoders: list[dict[str, Any]]) -> bytes | None:
    text = token
    for decoder in decoders:
        match decoder:
            case {"type": "Replace", "pattern": {"String": pattern}, "content": content}:
                text = text.replace(pattern, content)
            case {"type": "Metaspace", "replacement": space}:
                # At the start of a text all of a token's spaces are removed: only with one in front that is one space.
                if _strips(decoder) and space in token[1:]:
                    return None
                text = text.replace(space, " ")
            case {"type": "ByteFallback"} if _BYTE_TOKEN.fullmatch(text):
                return bytes([int(text[3:-1].lstrip("+"), 16)])
    return text.encode()


def _decoders(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    if tokenizer.decoder is None:
        return []
    decoder = json.loads(tokenizer.decoder.__getstate__())
    return list(decoder["decoders"]) if decoder["type"] == "Sequence" else [decoder]


def _is_local(decoder: dict[str, Any]) -> bool:
    """Whether each token is decoded by itself, except for a space at the very start and for runs of byte tokens."""
    match decoder:
        case {"type": "ByteFallback" | "Fuse" | "Metaspace"}:
            return True
        case {"type": "Replace", "pattern": {"String": pattern}, "content": content}:
            return len(pattern) == 1 and content != ""
        case {"type": "Strip", "start": start, "stop": stop}:
            return bool(start <= 1 and stop == 0)
    return False


class _TextStream(Protocol):
    def push(self, tokens: list[tuple[int, str]]) -> str: ...
    def finish(self) -> str: ...


class _ByteStream:
    """The text of byte-level tokens: their bytes, through an incremental UTF-8 decoder."""

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, tokens: list[tuple[int, str]]) -> str:
        return self._utf8.decode(b"".join(_token_bytes(token) for _, token in tokens))

    def finish(self) -> str:
        return self._utf8.decode(b"", final=True)


class _PieceStream:
    """The text of tokens that are decoded in runs, each of which ends in a closed token.

    Each run is decoded together with the last token of the run before it, whose text is then cut off: so a decoder that
    strips the start of a text strips only that.
    """

    def __init__(self, tokenizer: Tokenizer, *, is_open: Callable[[str], bool]) -> None:
        self._tokenizer = tokenizer
        self._is_open = is_open
        self._anchor: list[int] = []
        self._pending: list[int] = []

    def push(self, tokens: list[tuple[int, str]]) -> str:
        last = next((at for at in range(len(tokens) - 1, -1, -1) if not self._is_open(tokens[at][1])), None)
        if last is None:
            self._pending += [token_id for token_id, _ in tokens]
            return ""
        text = self._text(self._pending + [token_id for token_id, _ in tokens[: last + 1]])
        self._pending = [token_id for token_id, _ in tokens[last + 1 :]]
        if tokens[last][1]:
            self._anchor = [tokens[last][0]]
        return text

    def finish(self) -> str:
        return self._text(self._pending)

    def _text(self, ids: list[int]) -> str:
        before = self._tokenizer.decode(self._anchor, skip_special_tokens=False)
        return self._tokenizer.decode(self._anchor + ids, skip_special_tokens=False)[len(before) :]


def _byte_alphabet() -> dict[str, int]:
    """Returns GPT-2's alphabet: printable Latin-1 is itself, the other bytes are characters from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + at): byte for at, byte in enumerate(others)}


_BYTES = _byte_alphabet()


def _token_bytes(token: str) -> bytes:
    # The ByteLevel decoder leaves a token with any foreign character (an added one) as it is written.
    if all(character in _BYTES for character in token):
        return bytes(_BYTES[character] for character in token)
    return token.encode()
