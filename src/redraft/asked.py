"""An answer that is asked for, and how it is given: by the readable loop, or by an engine of its own."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from redraft.answers import AnswerReader, Committed, Draft, Result
from redraft.constraints.tokens import TokenAutomaton
from redraft.diffusion.settings import SamplerSettings
from redraft.diffusion.start import CanvasStart
from redraft.engine import EngineCore, Limits, Request
from redraft.engine.parts import Parts
from redraft.generation.loop import denoising_steps
from redraft.generation.modes import Mode
from redraft.generation.result import DenoisingStep, Generation, to_its_end
from redraft.parts import engine_parts
from redraft.text import ReadPrompt
from redraft.text.prompts.grounding import SourceText

if TYPE_CHECKING:
    from redraft.api import Model


@dataclass(frozen=True)
class AskedAnswer:
    """A prompt as it was read, and what is asked of its answer."""

    model: "Model"
    prompt: ReadPrompt
    settings: SamplerSettings
    constraint: TokenAutomaton | None
    schema: Any
    mode: Mode
    start: CanvasStart | None
    is_scored: bool
    source: SourceText | None = None

    def reader(self) -> AnswerReader:
        """Returns what tells of the answer."""
        model = self.model
        return AnswerReader(
            model.name, model.tokenizer, self.prompt, self.settings, stop_ids=model.transformer.config.eos_ids,
            mode=self.mode, schema=self.schema, is_held=self.constraint is not None, calibration=model.calibration,
            source=self.source,
        )  # fmt: skip

    def result(self) -> Result:
        """Answers it."""
        if self.mode != "diffusion":
            *_, result = self.engine_events(drafts=False)
            assert isinstance(result, Result)
            return result
        answers = [to_its_end(self._steps)(prompt) for prompt in self.prompt.parts or (self.prompt,)]
        return self.reader().result_of(self.joined(answers))

    def events(self) -> Iterator[Draft | Committed | Result]:
        """Answers it on canvases, step by step; of an answer in parts the text comes when the last is done."""
        reader, parts = self.reader(), self.prompt.parts
        answers = list[Generation]()
        for prompt in parts or (self.prompt,):
            steps, before = self._steps(prompt), sum(len(one.canvases) for one in answers)
            while True:
                try:
                    step = next(steps)
                except StopIteration as end:
                    answers.append(end.value)
                    break
                yield reader.draft(replace(step, canvas=before + step.canvas))
                if step.finished and not parts:
                    yield reader.commit(step.draft.tolist())
        whole = self.joined(answers)
        if parts:
            yield reader.commit(whole.token_ids)
        yield from reader.finish(whole)

    def joined(self, answers: Sequence[Generation]) -> Generation:
        """Returns the one answer that those to its parts make, or that to the prompt itself."""
        parts = self._parts()
        return answers[0] if parts is None else parts.join(answers)

    def _steps(self, prompt: ReadPrompt) -> Generator[DenoisingStep, None, Generation]:
        model = self.model
        return denoising_steps(
            model.transformer, prompt.ids, self.settings, self.constraint, model.adapter, self.start,
            is_scored=self.is_scored,
        )  # fmt: skip

    def _parts(self) -> Parts | None:
        return engine_parts(self.model, self.prompt, self.settings, self.mode)

    def engine_events(self, *, drafts: bool) -> Iterator[Draft | Committed | Result]:
        """Answers it in a mode that only an engine has. What it refuses it refuses at once."""
        model = self.model
        rows, room = self.settings.canvas_length or 1, model.transformer.config.max_context
        core = EngineCore(
            model.transformer, Limits(forward_tokens=max(2048, rows), admitted_tokens=room, prefix_tokens=0)
        )
        core.submit(
            Request(
                id="", prompt=tuple(self.prompt.ids), settings=self.settings, drafts=drafts,
                mode=self.mode, constraint=self.constraint, start=self.start, adapter=model.adapter,
                parts=self._parts(),
            )
        )  # fmt: skip
        reader = self.reader()

        def events() -> Iterator[Draft | Committed | Result]:
            while core.held:
                for event in core.step():
                    yield from reader.read(event)

        return events()
