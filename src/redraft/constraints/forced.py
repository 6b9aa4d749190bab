"""Which tokens of a draft a constraint forces: where it leaves one text only, but for spaces."""

import itertools
from collections.abc import Sequence

from redraft.constraints.tokens import TokenAutomaton
from redraft.constraints.vocabulary import Vocabulary

MAX_ALLOWED = 64
"""Where more tokens are allowed, they are taken to part."""
MAX_LENGTH = 64
END = b"\xf8"
"""The end of an answer, as a byte that no text has."""


class ForcedTokens:
    """The drafts of one answer, canvas by canvas."""

    def __init__(self, automaton: TokenAutomaton, vocabulary: Vocabulary) -> None:
        self._automaton, self._vocabulary = automaton, vocabulary
        self._state: int | None = automaton.start
        self._steps: dict[int, tuple[bytes, int | None]] = {}

    def of_draft(self, token_ids: Sequence[int]) -> list[bool]:
        """Returns for each token of the present canvas whether nothing else could stand there."""
        found, state = [], self._state
        for token_id in token_ids:
            text = self._text_of(token_id)
            # Behind the end there is no choice, and nothing that is written.
            if state is None or state == self._automaton.done or not text:
                found.append(False)
            else:
                found.append(self._forced_text(state).startswith(text))
            state = None if state is None else self._automaton.next_state(state, token_id)
        return found

    def commit(self, token_ids: Sequence[int]) -> None:
        """Takes note of a canvas that is finished, or of what the answer keeps of it."""
        if self._state is not None:
            self._state = self._automaton.state_after(token_ids, self._state)

    def _forced_text(self, state: int) -> bytes:
        """Returns the text that everything in a state goes on with, as far as a token may reach."""
        text = b""
        while len(text) < MAX_LENGTH:
            if state not in self._steps:
                self._steps[state] = self._step(state)
            part, after = self._steps[state]
            text += part
            if after is None:
                break
            state = after
        return text

    def _step(self, state: int) -> tuple[bytes, int | None]:
        """Returns what all allowed tokens begin with, and the state after it: None where they part, or at the end."""
        automaton, texts = self._automaton, dict[bytes, int]()
        for arc in range(automaton.first[state], automaton.first[state + 1]):
            ids = automaton.tokens_of(automaton.arc_class[arc]).tolist()
            if len(texts) + len(ids) > MAX_ALLOWED:
                return b"", None
            texts |= {text: int(automaton.target[arc]) for text in map(self._text_of, ids) if text}
        # What the first and the last in order begin with, all do.
        pairs = zip(min(texts, default=b""), max(texts, default=b""), strict=False)
        common = bytes(one for one, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        return common, None if common == END else texts.get(common)

    def _text_of(self, token_id: int) -> bytes:
        text = self._vocabulary.token_bytes[token_id]
        return END if text is None else text.replace(b" ", b"")
