"""The façade: a Model answers text with text. `load` makes it (`loading.py`)."""

import copy
import dataclasses
import functools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack, cast

from redraft.answers import AnswerArguments, Committed, Draft, HoldingArguments, Result, check_held, json_schema_of
from redraft.asked import AskedAnswer
from redraft.constraints.build import AutomatonCache, ConstraintSpec, spec_of
from redraft.constraints.language.blanks import BLANK
from redraft.constraints.language.marks import BYTES_OF_MARKS, LAST_IN_UTF8
from redraft.constraints.limits import BuildLimits
from redraft.constraints.tokens import TokenAutomaton
from redraft.constraints.vocabulary import Vocabulary
from redraft.decisions import Decision, DecisionArguments, TypedQuestion, decide
from redraft.diffusion.settings import SamplerArguments, SamplerSettings
from redraft.diffusion.start import CanvasStart
from redraft.filling import BLANK_LIMIT, FilledText, fill_blanks, rewrite_span
from redraft.generation.autoregressive import generate_autoregressive
from redraft.generation.constrained import check_constraint
from redraft.generation.modes import ANSWERING_MODES, Mode, chosen_mode, settings_of_mode
from redraft.generation.result import check_prompt
from redraft.held import Holding, depends_on_prompt, held_answer, may_be_parted
from redraft.model.preparation import hold_adapters
from redraft.model.transformer import Transformer
from redraft.parts import parts_of, texts_of
from redraft.text import ReadPrompt, TextTokenizer, part_tokens
from redraft.text.checks import check_controls, fields_in_words
from redraft.text.prompts.conversation import check_conversation, check_prompts, check_read, joined, text_of
from redraft.text.prompts.forms import PromptTask
from redraft.text.trust.calibration import Calibration, read_calibration
from redraft.utils.forks import check_not_forked
from redraft.weights.adapters.files import read_adapter
from redraft.weights.card import Card
from redraft.weights.card import read_card as _read_card
from redraft.weights.checkpoint import Checkpoint
from redraft.weights.config.file import read_generation_config
from redraft.weights.fetch import resolve
from redraft.weights.memory import check_available

BUILD_SECONDS = 20.0
"""What a constraint may take to be built: longer than in a server, since nobody else waits for it."""

Prompt = str | Sequence[Mapping[str, object]]
"""A user's text, or a conversation as a list of {"role": ..., "content": ...}."""


_OTHERS = AnswerArguments.__annotations__.keys() - SamplerArguments.__annotations__.keys() - {"adapter"}


class Model:
    """A loaded checkpoint that answers text with text, or what an adapter makes of it. Made by `load`.

    folder: the checkpoint's. adapter: the name of the adapter that it answers with, None for none.
    """

    def __init__(
        self,
        name: str,
        transformer: Transformer,
        tokenizer: TextTokenizer,
        defaults: SamplerSettings,
        card: Card,
        *,
        folder: Path | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.name = name
        self.card = card
        self.calibration = calibration
        self.transformer = transformer
        self.tokenizer = tokenizer
        self.defaults = defaults
        self.folder = folder
        self.adapter: str | None = None
        self._base = self
        self._adapted: dict[str, Model] = {}
        self._automata = AutomatonCache(limits=BuildLimits(seconds=BUILD_SECONDS))

    def __repr__(self) -> str:
        config = self.transformer.config
        return f"<Model {self.name!r}: canvas of {config.canvas_length} tokens, context of {config.max_context:,}>"

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of the adapters that are loaded."""
        return tuple(self._base._adapted)

    @property
    def usual_mode(self) -> Mode:
        """How answers are written where nobody says: as the card has it, else by diffusion. ValueError for others."""
        mode = self.card.mode or ANSWERING_MODES[0]
        if mode not in ANSWERING_MODES:
            raise ValueError(f"the card of {self.name} has mode {mode!r}, must be one of {', '.join(ANSWERING_MODES)}")
        return cast(Mode, mode)

    def load_adapter(self, folder: str | os.PathLike[str], name: str | None = None) -> "Model":
        """Loads an adapter in PEFT's layout, and returns what it makes of this model; the two share the weights.

        folder: its folder, that of a run that trained it, or its name on the hub. name: what calls ask for it by; None
        is the last part of the folder's. It brings its own card and sampler settings, where it has any. ValueError for
        an adapter of another base, one that is damaged or does not fit into the memory, and a name that is taken.
        """
        base = self._base
        if base.folder is None:
            raise ValueError(f"{base!r} was not loaded from a folder: what its adapters belong to is not known")
        if not isinstance(folder, str | os.PathLike):
            raise ValueError(f"the adapter is {folder!r:.80}, must be a folder, or a name on the hub")
        path = resolve(os.fspath(folder), is_adapter=True)
        name = Path(folder).resolve().name if name is None else name
        adapter = read_adapter(path, base.transformer.config)
        adapter.check_base(Checkpoint.open(base.folder))
        settings = read_generation_config(path)
        adapted = copy.copy(base)
        adapted.name = adapted.adapter = name
        adapted.card, adapted.calibration = _read_card(path), read_calibration(path)
        adapted.defaults = SamplerSettings.from_generation_config(settings) if settings else base.defaults
        bank = hold_adapters(base.transformer)
        needed = bank.bytes_with(adapter)
        check_available(needed, f"{path} beside the adapters that are loaded", "unload others, or free some memory")
        bank.add({name: adapter})
        base._adapted[name] = adapted
        return adapted

    def unload_adapter(self, name: str) -> None:
        """Lets an adapter go; answers in progress with it fail. ValueError where none of that name is loaded."""
        adapted = self.with_adapter(name)
        adapted.transformer.adapters.remove(name)  # type: ignore[union-attr]
        del self._base._adapted[name]

    def with_adapter(self, name: str | None) -> "Model":
        """Returns what a loaded adapter makes of this model; this model itself for None. ValueError for others."""
        if name is None:
            return self
        self.transformer.adapter(name)  # raises for one that is not there
        return self._base._adapted[name]

    def generate(self, prompt: Prompt, **arguments: Unpack[AnswerArguments]) -> Result:
        """Answers one prompt. Sampler settings override the checkpoint's own; for the others see `constraint`.

        ValueError for an empty prompt, one beyond the context, settings that are unknown or out of range, and a
        constraint that is refused or not to be met; RuntimeError in a process forked after the model was loaded.
        """
        return self._ask(prompt, arguments).result()

    def stream(self, prompt: Prompt, **arguments: Unpack[AnswerArguments]) -> Iterator[Draft | Committed | Result]:
        """Yields a Draft for each step, Committed text for each canvas or causal pass, and finally the Result.

        Raises what `generate` raises, and does so when called, before the first event is read.
        """
        asked, config = self._ask(prompt, arguments), self.transformer.config
        if asked.mode != "diffusion":
            return asked.engine_events(drafts=asked.mode != "autoregressive")
        length = asked.settings.canvas_length or config.canvas_length
        check_prompt(asked.prompt.longest_ids, length, config.vocab_size, config.max_context)
        if asked.constraint is not None:
            check_constraint(
                asked.constraint, vocab_size=config.vocab_size, stop_ids=config.eos_ids,
                prompt_length=len(asked.prompt.longest_ids), canvas_length=length,
                max_new_tokens=asked.settings.max_new_tokens, max_context=config.max_context,
            )  # fmt: skip
        return asked.events()

    def constraint(
        self,
        *,
        schema: Any = None,
        regex: str | None = None,
        choice: Sequence[str] | None = None,
        grammar: str | None = None,
    ) -> TokenAutomaton:
        """Builds what an answer is held to, with this model's tokens; the last ones are kept.

        schema: a JSON Schema as a dict, or a type that pydantic knows, as a class of its own or `list[int]`. regex: a
        pattern that the whole answer matches. choice: the texts that it may be. grammar: rules, one of them named start
        or root. ValueError unless just one is given, and for what is refused or too large (docs/constraints.md).
        """
        described = None if schema is None else json_schema_of(schema)
        spec = spec_of(schema=described, regex=regex, choice=choice, grammar=grammar)
        if spec is None:
            raise ValueError("there is no constraint: give one of schema, regex, choice, grammar")
        return self._automata.get(spec, self.vocabulary)

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """What the model's tokens write, as constraints need it."""
        if self._base is not self:
            return self._base.vocabulary
        config = self.transformer.config
        found = self.tokenizer.all_token_bytes(config.vocab_size)
        # Some tokens are single bytes: those that no text has stand for control tokens here.
        tokens = [None if token and max(token) > LAST_IN_UTF8 else token for token in found.tokens]
        for name, token_id in part_tokens(self.tokenizer).items():
            tokens[token_id] = BYTES_OF_MARKS[name]
        return Vocabulary(tokens, end_ids=config.eos_ids, strips_first_space=found.strips_first_space)

    def generate_autoregressive(self, prompt: Prompt, **arguments: Unpack[AnswerArguments]) -> Result:
        """Answers one prompt in mode "autoregressive", without the engine: what the engine's answers have to equal.

        Raises what `generate` raises.
        """
        asked = self._ask(prompt, {**arguments, "mode": "autoregressive"})
        answers = [
            generate_autoregressive(self.transformer, one.ids, asked.settings, asked.constraint, asked.model.adapter)
            for one in asked.prompt.parts or (asked.prompt,)
        ]
        return asked.reader().result_of(asked.joined(answers))

    def fill(
        self,
        text: str,
        *,
        prompt: Prompt | None = None,
        blank: str = BLANK,
        limit: int | None = BLANK_LIMIT,
        **settings: Unpack[SamplerArguments],
    ) -> FilledText:
        """Writes the blanks of a text; the rest of it stays as it is, byte for byte.

        blank: what marks them. limit: the characters that each has at most; none has control characters or several
        lines. prompt: what the text answers; without one the model is asked to fill it. ValueError for a text without
        blanks or with two side by side, and what `generate` raises.
        """
        return fill_blanks(self, text, settings, prompt=prompt, blank=blank, limit=limit)

    def edit(
        self,
        text: str,
        start: int,
        end: int,
        *,
        instruction: str | None = None,
        limit: int | None = None,
        strength: float | None = None,
        **settings: Unpack[SamplerArguments],
    ) -> FilledText:
        """Writes the characters `start` to `end` of a text anew; all others stay as they are.

        instruction: what the model is asked, about the text around the span; without one, to fill the gap. limit: the
        characters that take the place of the span, by default twice as many as it has, and at least 40. strength:
        start from the span itself, this share of it noised, and keep its number of tokens. The model sees what its
        context has room for, to the right no more than a quarter of a canvas. ValueError for a span that is not in the
        text, and what `fill` raises.
        """
        return rewrite_span(self, text, start, end, settings, instruction=instruction, limit=limit, strength=strength)

    def decide(
        self, text: str, questions: Mapping[str, TypedQuestion], **options: Unpack[DecisionArguments]
    ) -> dict[str, Decision]:
        """Decides questions about a text by the probabilities of their labels, without writing an answer.

        passes: denoising passes, 1 to 4. orders, draws: over how many orders of the labels, and draws of the noise, it
        averages. temperature: that the labels are read under. All questions share each forward. The same seed decides
        the same, bit by bit. ValueError for labels that no canvas holds, and what `generate` raises of prompts.
        """
        check_not_forked()
        return decide(self, text, questions, **options)

    def map(self, prompts: Iterable[Prompt], **arguments: Unpack[AnswerArguments]) -> Iterator[Result]:
        """Yields the results of prompts, lazily and in order, each the one that `generate` gives."""
        check_prompts("map", prompts)
        for prompt in prompts:
            yield self.generate(prompt, **arguments)

    def encode(self, prompt: Prompt, **template_variables: Any) -> list[int]:
        """Returns the token ids of `read`."""
        return self.read(prompt, **template_variables).ids

    def read(self, prompt: Prompt, **template_variables: Any) -> ReadPrompt:
        """Returns a prompt as the model reads it: through the chat template if there is one, else plain, after BOS.

        Leaves out, with a warning, the messages that the card says the model was not trained on. What the card has a
        form for is put in it, or read in parts. Raises ValueError for a prompt that is empty, of another type, or has a
        message that is malformed.
        """
        if isinstance(prompt, str):
            if not prompt.strip():
                raise ValueError("the prompt is empty; write something to answer")
            if not self.tokenizer.has_chat_template:
                task = self.card.task_of(prompt)
                return self._described(self.read_plain(self.card.put(prompt, task)), task, prompt, self.encode_plain)
            prompt = [{"role": "user", "content": prompt}]
        check_conversation(prompt)
        messages, left_out = self.card.select([joined(message) for message in prompt])
        texts, last = [text_of(message) for message in messages], messages[-1]
        task = self.card.task_in([(str(one["role"]), text) for one, text in zip(messages, texts, strict=True)])
        if (asked := self.card.put(texts[-1], task)) != texts[-1]:
            # A request in words of its own is put in others, which need nothing before them.
            is_whole = task is not None and task.is_reworded
            messages = [*([] if is_whole else messages[:-1]), {**last, "content": asked}]
        ids = self.tokenizer.encode_chat(messages, **template_variables)
        for message in messages:
            check_read(message, self.tokenizer.template_reads)
        warnings, said = (*left_out, *self._control_warnings(texts)), "\n".join(texts) if self.card.object_form else ""
        read = ReadPrompt(ids, warnings, self.tokenizer.own_forms(texts), said=said)

        def encode(asked: str) -> list[int]:
            return self.tokenizer.encode_chat([{"role": "user", "content": asked}], **template_variables)

        return self._described(read, task, texts[-1], encode, str(last["role"]))

    def encode_plain(self, text: str) -> list[int]:
        """Returns the token ids of a plain text, after BOS if the model has one."""
        bos = self.transformer.config.bos_id
        return ([] if bos is None else [bos]) + self.tokenizer.encode(text)

    def read_plain(self, text: str) -> ReadPrompt:
        """Returns a plain text as the model reads it, after BOS if it has one, whatever its card says of prompts."""
        ids, task = self.encode_plain(text), self.card.task_of(text)
        return ReadPrompt(ids, self._control_warnings([text]), task=task, text=text)

    def _control_warnings(self, texts: Sequence[str]) -> tuple[str, ...]:
        return tuple(check_controls(self.tokenizer.spelled_controls(texts)))

    def _described(
        self,
        read: ReadPrompt,
        task: PromptTask | None,
        text: str,
        encode: Callable[[str], list[int]],
        role: str = "user",
    ) -> ReadPrompt:
        """Returns a prompt with what the card says of it. text: of its last message, as it was sent."""
        mended: tuple[str, ...] = ()
        found = texts_of(self.card, task)
        if task is not None and len(set(task.fields)) < len(task.fields) and (task.has_repeated_list or found.texts):
            again = [name for name, count in Counter(task.fields).items() if count > 1]
            mended = (f"the prompt asks more than once for the {fields_in_words(again)}: each is asked for once",)
            task = dataclasses.replace(task, fields=tuple(dict.fromkeys(task.fields)))

        def told(num_tokens: int, untold: Sequence[str] = ()) -> ReadPrompt:
            warnings = (*read.warnings, *self.card.prompt_warnings(task, role, num_tokens, text), *untold)
            known = self.card.knows(task, warnings)
            # What was mended says nothing against the prompt that is asked.
            return dataclasses.replace(
                read, task=task, text=text, refusal=self.card.refusal, is_known=known, warnings=(*warnings, *mended)
            )

        whole = told(len(read.ids))
        if task is None or not found.texts:
            return whole
        parts = parts_of(self.card, task, found, encode)
        described = told(max(len(part.ids) for part in parts), found.untold)
        return dataclasses.replace(described, parts=parts, may_be_none=found.may_be_none, unparted=whole)

    def _ask(self, prompt: Prompt, arguments: Mapping[str, Any]) -> AskedAnswer:
        check_not_forked()
        if (name := arguments.get("adapter")) is not None:
            return self.with_adapter(name)._ask(prompt, {**arguments, "adapter": None})
        arguments = {key: value for key, value in arguments.items() if key != "adapter"}
        given = {name: arguments[name] for name in _OTHERS if name in arguments}
        start, read = given.pop("start", None), self.read(prompt)
        named = {name: value for name, value in arguments.items() if name not in _OTHERS}
        if start is not None or not may_be_parted(given):
            read = read.whole
        mode = chosen_mode(given.pop("mode", None), self.usual_mode, named, has_start=start is not None)
        is_scored = self.is_scored(given.pop("is_scored", None)) and mode == "diffusion"
        settings = self.defaults.replace(**settings_of_mode(mode, named))
        check_held(given.get("constraint"), start)
        held = self.hold(prompt, read, **given)
        return AskedAnswer(self, read, settings, held.automaton, held.schema, mode, start, is_scored, held.source)

    def hold(self, prompt: Prompt, read: ReadPrompt, **arguments: Unpack[HoldingArguments]) -> Holding:
        """Returns what the answer to a prompt, which has been read, is held to. ValueError as `generate` has it."""
        automaton = arguments.pop("constraint", None)
        held = held_answer(prompt, read.task, self.tokenizer, in_parts=bool(read.parts), **arguments)
        if held.spec is not None:
            if automaton is not None:
                raise ValueError("a constraint is given twice: leave out one of them")
            automaton = self._automata.get(held.spec, self.vocabulary)
        return Holding(automaton, held.schema, held.source)

    def check_holding(self, **arguments: Unpack[HoldingArguments]) -> None:
        """Raises ValueError for what no answer can be held to, whatever its prompt is."""
        if not depends_on_prompt(**arguments):
            self.hold("", ReadPrompt([]), **arguments)

    def is_scored(self, asked: bool | None) -> bool:
        """Returns whether answers are scored, which calibrated checkpoints need, where nothing else is asked for."""
        return self.calibration is not None if asked is None else asked

    def answer(
        self,
        prompt: ReadPrompt,
        spec: ConstraintSpec | None = None,
        *,
        start: CanvasStart | None = None,
        **settings: Unpack[SamplerArguments],
    ) -> Result:
        """Answers a prompt that has been read, whole. spec: what the answer is held to; start: what it begins as."""
        check_not_forked()
        held = None if spec is None else self._automata.get(spec, self.vocabulary)
        return AskedAnswer(
            self, prompt.whole, self.defaults.replace(**settings), held, None, "diffusion", start, is_scored=False
        ).result()
