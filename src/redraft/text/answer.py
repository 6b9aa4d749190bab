"""An answer's text, from the tokens that arrive canvas by canvas: drafts, text, thoughts, tool calls, stop texts.

token ids ──cut at the end──▶ detokenizer or transcript ──▶ stop texts ──▶ Delta … Delta, End
"""

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from redraft.text.calls import ToolCall
from redraft.text.tokenizer import TextTokenizer
from redraft.text.transcript import Content, Part, Transcript
from redraft.utils.canvas import cut_canvas


@dataclass(frozen=True)
class ScoredToken:
    """A token of the answer with its log-probability. top: the likeliest in its place, as (id, log-probability)."""

    id: int
    log_prob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Delta:
    """The next part of an answer, and the scored tokens that became final with it, those without text included."""

    part: Part
    tokens: tuple[ScoredToken, ...] = ()


@dataclass(frozen=True)
class End:
    """The end of an answer. finish_reason: "stop", "length" or "tool_calls"."""

    finish_reason: str


class AnswerStream:
    """The text of one answer as it is written: `draft` and `commit` take the tokens of its canvases, `finish` ends it.

    stop_ids: tokens that end the answer and are cut off with what follows them. max_tokens: where it is cut.
    stop_texts: texts that end its content and are cut off. parses_parts: whether thoughts and tool calls are parts of
    their own; without it all is Content. delta_tokens: at most so many tokens become one delta; None puts no limit.
    forms: the prompt's own forms of letters, from `TextTokenizer.own_forms`.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        *,
        stop_ids: Collection[int],
        max_tokens: int,
        stop_texts: Sequence[str] = (),
        parses_parts: bool = False,
        delta_tokens: int | None = None,
        forms: Mapping[int, str] | None = None,
    ) -> None:
        self.num_tokens = 0
        """Tokens committed so far, up to a stop text."""
        self.has_ended = False
        self._tokenizer = tokenizer
        self._stop_ids = stop_ids
        self._max_tokens = max_tokens
        self._parts = Transcript(tokenizer, parses_parts=parses_parts)
        self._cutter = StopCutter(stop_texts)
        self._delta_tokens = delta_tokens
        self._forms = forms or {}
        self._scored: list[ScoredToken] = []
        self._has_calls = False

    def draft(self, token_ids: Sequence[int]) -> str:
        """The text that an unfinished canvas would add if it stopped here."""
        return self._tokenizer.decode(self._cut(token_ids)).translate(self._forms)

    def commit(self, token_ids: Sequence[int], scored: Sequence[ScoredToken] = ()) -> Iterator[Delta | End]:
        """Takes a finished canvas and yields what becomes certain with it; nothing after a stop text.

        token_ids may be the whole canvas or what the answer keeps of it. scored: those tokens with their
        log-probabilities, or none.
        """
        kept = self._cut(token_ids)
        # Where it matters which token brought which text, they are taken one by one.
        size = 1 if scored or self._cutter.stops else self._delta_tokens or max(1, len(kept))
        for start in range(0, len(kept), size):
            if self.has_ended:
                return
            group = kept[start : start + size]
            self.num_tokens += len(group)
            self._scored += scored[start : start + size]
            yield from self._deltas(self._parts.push(group))
            if self._cutter.found:
                yield from self._end("stop")

    def finish(self, finish_reason: str) -> Iterator[Delta | End]:
        """Yields the rest of an answer that ends here, and its End; nothing after a stop text."""
        if not self.has_ended:
            yield from self._deltas(self._parts.finish())
            yield from self._end(finish_reason)

    def _cut(self, token_ids: Sequence[int]) -> list[int]:
        return cut_canvas(token_ids, self._stop_ids, self._max_tokens - self.num_tokens)[0]

    def _deltas(self, parts: Sequence[Part]) -> Iterator[Delta]:
        for part in map(self._in_own_form, parts):
            # Before a part of another kind: what was held back can no longer become a stop text.
            text = self._cutter.push(part.text) if isinstance(part, Content) else self._cutter.finish()
            if text:
                yield self._delta(Content(text))
            if self._cutter.found:
                return
            if not isinstance(part, Content):
                self._has_calls |= isinstance(part, ToolCall) and part.complete
                yield self._delta(part)

    def _in_own_form(self, part: Part) -> Part:
        if isinstance(part, ToolCall):
            return dataclasses.replace(part, arguments=part.arguments.translate(self._forms))
        return type(part)(part.text.translate(self._forms))

    def _end(self, finish_reason: str) -> Iterator[Delta | End]:
        self.has_ended = True
        if self._cutter.found:
            finish_reason, self._scored = "stop", []
        rest = self._cutter.finish()
        if rest or self._scored:
            yield self._delta(Content(rest))
        yield End("tool_calls" if self._has_calls and finish_reason == "stop" else finish_reason)

    def _delta(self, part: Part) -> Delta:
        tokens, self._scored = tuple(self._scored), []
        return Delta(part, tokens)


class StopCutter:
    """Cuts a text that arrives in pieces before the first of some stop texts, and holds back what may become one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = tuple(stops)
        self.found = False
        self._held = ""

    def push(self, text: str) -> str:
        """The text that is certain not to belong to a stop text; nothing more once one was found."""
        if not self.stops:
            return text
        if self.found:
            return ""
        text = self._held + text
        places = [at for stop in self.stops if (at := text.find(stop)) >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)]
        keep = max(_overlap(text, stop) for stop in self.stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Returns how many characters at the end of a text are the beginning of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-n:])), 0)
