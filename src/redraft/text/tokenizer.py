"""A checkpoint's tokenizer: text to ids and back. Only the chat template can write control tokens."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE, WordLevel, WordPiece

from redraft.text.characters import own_forms, writable
from redraft.text.detokenizer import (
    REPLACEMENT,
    Detokenizer,
    TokenBytes,
    all_byte_forms,
    byte_form,
    check_ids,
    display_text,
    streaming,
)
from redraft.text.markers import Finder, Markers, replace, strings
from redraft.text.prompts.grounding import SourceText
from redraft.text.template import ChatTemplate, TemplateLimits

MIB = 1024 * 1024
MAX_TOKENIZER = 256 * MIB
MAX_CONFIG = 16 * MIB
MAX_TEMPLATE = TemplateLimits().max_source
SHORT_TEXT = 4096
"""Characters; a text of this length is encoded in a millisecond or two."""
PROBE = ({"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}, {"role": "user", "content": "x"})


class TextTokenizer:
    """An encoder and decoder around a `tokenizers` tokenizer, which it owns from then on.

    Control tokens are the added tokens marked special and all tokens that the configuration names (bos_token, ...).
    Other added tokens are vocabulary: they are matched in any text, as in training. `named_tokens` maps the
    configuration's names to texts and is given to the template. Raises ValueError on a template that is too long.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        named_tokens: Mapping[str, str] | None = None,
        declared_tokens: Sequence[str] = (),
        chat_template: str | None = None,
        limits: TemplateLimits | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._named = dict(named_tokens or {})
        declared = [text for text in [*self._named.values(), *declared_tokens] if self.token_id(text) is not None]
        tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in declared])
        tokenizer.encode_special_tokens = True
        tokenizer.no_truncation()
        tokenizer.no_padding()
        added = tokenizer.get_added_tokens_decoder()
        self._control = {token.content: token_id for token_id, token in added.items() if token.special}
        self._control |= {text: token_id for text in declared if (token_id := self.token_id(text)) is not None}
        self.bos_id, self.eos_id = (
            self.token_id(self._named[name]) if name in self._named else None for name in ("bos_token", "eos_token")
        )
        self.special_ids = frozenset(self._control.values())
        """Ids of the control tokens."""
        self._forbidden = self.special_ids - self._unknown_ids()
        self._finder = Finder(self._control)
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        self.vocab_size = 1 + max(vocabulary.values(), default=-1)
        """One more than the highest id."""
        self.longest_token = max(map(len, vocabulary), default=1)
        """The characters of the longest token: a text of n characters has at least n / longest_token tokens."""
        self._streaming = streaming(tokenizer)
        self._known_characters: dict[str, bool] = {}
        self._template: ChatTemplate | None = None
        if chat_template is not None:
            written = {*self._named.values(), *(text for text in self._control if text in chat_template)}
            tokens = {text: token_id for text, token_id in self._control.items() if text in written}
            self._markers = Markers(tokens, chat_template)
            self._template = ChatTemplate(chat_template, literals=self._markers.literals, limits=limits)

    @classmethod
    def load(cls, folder: Path) -> "TextTokenizer":
        """Reads tokenizer.json and, where they exist, tokenizer_config.json and chat_template.jinja (which wins).

        Raises ValueError naming the file that is missing, too large or broken.
        """
        path = folder / "tokenizer.json"
        content = _read(path, MAX_TOKENIZER)
        if content is None:
            raise ValueError(f"{path} is missing: the folder must hold a checkpoint's tokenizer.json")
        try:
            tokenizer = Tokenizer.from_str(content)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of the Rust library is not an Exception
            raise ValueError(f"{path} is not a tokenizer: {_one_line(error)}") from None
        config = _read_config(folder / "tokenizer_config.json")
        template = _read(folder / "chat_template.jinja", MAX_TEMPLATE)
        if template is None:
            template = _template_in(config, folder / "tokenizer_config.json")
        return cls(
            tokenizer,
            named_tokens=dict(_named_tokens(config)),
            declared_tokens=list(_declared_tokens(config)),
            chat_template=template,
        )

    def check_fits(self, vocab_size: int, folder: Path) -> None:
        """Raises ValueError if it has tokens that a model of `vocab_size`, in the same folder, has no embedding for."""
        if self.vocab_size > vocab_size:
            raise ValueError(
                f"the tokenizer in {folder} has {self.vocab_size} tokens, the model {vocab_size}: "
                "they belong to different checkpoints"
            )

    @property
    def has_chat_template(self) -> bool:
        return self._template is not None

    def template_reads(self, name: str) -> bool:
        """Returns whether the chat template mentions a variable of this name; otherwise it would ignore it."""
        return self._template is not None and re.search(rf"\b{re.escape(name)}\b", self._template.source) is not None

    def token_id(self, text: str) -> int | None:
        """Returns the id of the token with exactly this text in the vocabulary, control tokens included."""
        _check_text(text)
        found: int | None = self._tokenizer.token_to_id(text)
        return found

    def encode(self, text: str) -> list[int]:
        """Returns the ids of plain text: no BOS, and what looks like a control token is only text.

        Raises ValueError if the text holds lone surrogates.
        """
        _check_text(text)
        return self._encode(text)

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        add_generation_prompt: bool = True,
        **template_variables: object,
    ) -> list[int]:
        """Returns the ids of a conversation as the checkpoint's template writes it.

        `messages` are {"role": ..., "content": ...} and whatever else the template reads, as JSON values, and so are
        `template_variables` (`tools`, `enable_thinking`, ...). Control tokens come from the template's own text alone;
        in messages and variables they are text, and the template does not recognize them there either (Gemma 4's, for
        one, does not cut thoughts out of a message that spells out their markers). Characters that the vocabulary lacks
        are read in their plainer form, see `redraft.text.characters`.

        Raises ValueError if there is no template, messages are malformed, or the template fails or passes a limit.
        """
        if self._template is None:
            raise ValueError("this checkpoint has no chat template: use a plain prompt, or add a chat_template.jinja")
        _check_messages(messages)
        given = {**template_variables, "messages": messages}
        texts = list(strings(given))
        for text in texts:
            _check_text(text)
        stand_ins = self._markers.stand_ins(texts)
        protected = replace(given, str.maketrans(stand_ins))
        assert isinstance(protected, dict)
        pieces = self._render(protected, add_generation_prompt)
        restore = str.maketrans({stand_in: character for character, stand_in in stand_ins.items()})
        pieces = [piece if isinstance(piece, int) else piece.translate(restore) for piece in pieces]
        if self._spelled(pieces) - set().union(*(self._finder.find(text) for text in texts)):
            self._refuse_composing()
        return [
            token_id
            for piece in pieces
            for token_id in ([piece] if isinstance(piece, int) else self.encode(writable(piece, self._has_token)))
        ]

    def own_forms(self, texts: Iterable[str]) -> dict[int, str]:
        """Returns, for `str.translate`, letters that `encode_chat` reads in another form, and their form in `texts`."""
        return own_forms(texts, self._has_token)

    def spelled_controls(self, texts: Iterable[str]) -> list[str]:
        """Returns the control tokens that are spelled out in texts, where they are nothing but text."""
        return sorted(set().union(*map(self._finder.find, texts)))

    def source(self, text: str, offset: int = 0) -> SourceText:
        """Returns a text as `encode_chat` reads it, and where each of its characters stands."""
        return SourceText.of(text, self._has_token, offset)

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Returns the text of ids, without control tokens by default. ValueError for an id outside the vocabulary."""
        check_ids(ids, self.vocab_size)
        skipped = self.special_ids if skip_special else frozenset()
        kept = [token_id for token_id in ids if token_id not in skipped]
        return self._tokenizer.decode(kept, skip_special_tokens=False)

    def detokenizer(self, *, skip_special: bool = True) -> Detokenizer:
        """Returns a new incremental decoder, for one text."""
        skipped = self.special_ids if skip_special else ()
        return Detokenizer(self._tokenizer, vocab_size=self.vocab_size, skipped=skipped)

    def token_text(self, token_id: int) -> str:
        """Returns how to show one token: its text, or U+FFFD for half a character or an id without a token."""
        if not 0 <= token_id < self.vocab_size:
            return REPLACEMENT
        return display_text(self._tokenizer, token_id, self._streaming)

    def token_bytes(self, token_id: int) -> bytes:
        """Returns the bytes that one token adds to a text, perhaps half a character; a control token adds none."""
        check_ids([token_id], self.vocab_size)
        if token_id in self.special_ids:
            return b""
        return byte_form(self._tokenizer, token_id, self._streaming)

    def all_token_bytes(self, size: int | None = None) -> TokenBytes:
        """Returns the bytes of every id, None for control tokens and gaps; up to `size` ids, by default all.

        Raises ValueError if the decoder does not read token by token.
        """
        found = all_byte_forms(self._tokenizer, self.vocab_size if size is None else size)
        for token_id in self.special_ids:
            if token_id < len(found.tokens):
                found.tokens[token_id] = None
        return found

    def _has_token(self, character: str) -> bool:
        """Returns whether a character is a token of its own. Asked of few of them, and a text may be full of these."""
        if character not in self._known_characters:
            ids = self.encode(character)
            self._known_characters[character] = len(ids) == 1 and self.token_text(ids[0]) == character
        return self._known_characters[character]

    def _encode(self, text: str) -> list[int]:
        # Encoding one text holds the interpreter's lock, encoding a batch does not: a long text must not stall others.
        encoding = (
            self._tokenizer.encode(text, add_special_tokens=False)
            if len(text) <= SHORT_TEXT
            else self._tokenizer.encode_batch([text], add_special_tokens=False)[0]
        )
        ids: list[int] = encoding.ids
        if self._forbidden.isdisjoint(ids):
            return ids
        # The vocabulary has a control token's text as a word: it is encoded in two halves.
        spans = [span for token_id, span in zip(ids, encoding.offsets, strict=True) if token_id in self._forbidden]
        cuts = sorted({start + 1 for start, end in spans if end - start > 1})
        if not cuts:
            raise ValueError(f"the text {text[slice(*spans[0])]!r} is a control token and has no other encoding")
        edges = [0, *cuts, len(text)]
        return [token_id for start, end in pairwise(edges) for token_id in self._encode(text[start:end])]

    def _render(self, given: Mapping[str, object], add_generation_prompt: bool) -> list[str | int]:
        assert self._template is not None
        named = {name: self._markers.literals.get(text, text) for name, text in self._named.items()}
        variables = {"tools": None, "documents": None, **named, **given}
        rendered = self._template.render({**variables, "add_generation_prompt": add_generation_prompt})
        return list(self._markers.split(rendered))

    def _spelled(self, pieces: Sequence[str | int]) -> set[str]:
        return set().union(*(self._finder.find(piece) for piece in pieces if isinstance(piece, str)))

    def _refuse_composing(self) -> None:
        """Raises ValueError if the template composes control tokens from parts, which would reach the model as text."""
        try:
            spelled = self._spelled(self._render({"messages": PROBE}, add_generation_prompt=True))
        except ValueError:
            return
        if spelled:
            raise ValueError(
                f"the chat template composes control tokens from parts: {sorted(spelled)}; write each as one constant"
            )

    def _unknown_ids(self) -> set[int]:
        """Returns the ids that stand for text outside the vocabulary: plain text may become them."""
        model = self._tokenizer.model
        names = {self._named.get("unk_token")}
        if isinstance(model, (BPE, WordLevel, WordPiece)):
            names.add(model.unk_token)
        return {self._control[name] for name in names if name in self._control}


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        where = f"{text[error.start]!r} at character {error.start + 1}"
        raise ValueError(f"the text holds the lone surrogate {where}: send valid Unicode") from None


def _check_messages(messages: Sequence[Mapping[str, object]]) -> None:
    if not isinstance(messages, (list, tuple)) or not messages:
        raise ValueError("messages must be a list of at least one {'role': ..., 'content': ...}")
    for at, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise ValueError(f"message {at} must be a dict with a 'role' that is a string")


def _read(path: Path, max_bytes: int) -> str | None:
    """Returns a file's text, or None if there is no such file. ValueError if it is too large or not UTF-8."""
    if not path.exists():
        return None
    if not path.is_file():
        raise ValueError(f"{path} is not a file")
    if (size := path.stat().st_size) > max_bytes:
        raise ValueError(f"{path} has {size} bytes, the limit is {max_bytes}: is it the right file?")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as UTF-8 text: {_one_line(error)}") from None


def _read_config(path: Path) -> dict[str, Any]:
    content = _read(path, MAX_CONFIG)
    try:
        config = json.loads(content) if content is not None else {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {_one_line(error)}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds a {type(config).__name__}, must be a JSON object")
    return config


def _template_in(config: Mapping[str, Any], path: Path) -> str | None:
    """Returns the configuration's template; of several named ones, the one called "default"."""
    found = config.get("chat_template")
    if isinstance(found, list):
        named = {item.get("name"): item.get("template") for item in found if isinstance(item, dict)}
        if "default" not in named:
            raise ValueError(f"{path} has chat templates but none named 'default': add a chat_template.jinja")
        found = named["default"]
    if found is not None and not isinstance(found, str):
        raise ValueError(f"{path} has a chat_template that is a {type(found).__name__}, must be a string")
    if found is not None and len(found.encode("utf-8", "replace")) > MAX_TEMPLATE:
        raise ValueError(f"{path} has a chat_template of over {MAX_TEMPLATE} bytes, the limit: shorten it")
    return found


def _token_text(entry: object) -> str | None:
    text = entry.get("content") if isinstance(entry, Mapping) else entry
    return text if isinstance(text, str) and text else None


def _named_tokens(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields names and texts of special tokens such as "bos_token", from the top level and the dicts for more."""
    top = {name: entry for name, entry in config.items() if name.endswith("_token")}
    for part in (config.get("extra_special_tokens"), config.get("model_specific_special_tokens"), top):
        if isinstance(part, Mapping):
            yield from ((name, text) for name, entry in part.items() if (text := _token_text(entry)) is not None)


def _declared_tokens(config: Mapping[str, Any]) -> Iterator[str]:
    """Yields the texts of the special tokens that the configuration lists without a name."""
    for part in (config.get("extra_special_tokens"), config.get("additional_special_tokens")):
        if isinstance(part, list):
            yield from (text for entry in part if (text := _token_text(entry)) is not None)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
