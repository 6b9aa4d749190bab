"""The text that a request's values are taken from, where they are held to it."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from redraft.constraints.build import ConstraintSpec
from redraft.constraints.json_schema.compiler import SchemaOptions
from redraft.held import has_span, source_of
from redraft.parts import texts_of
from redraft.server.constraints import Wanted
from redraft.server.openai.errors import bad_request
from redraft.server.openai.preparation import check_length, encode, may_be_in_parts
from redraft.server.openai.requests import GenerationRequest
from redraft.server.service import Service
from redraft.text.prompts.forms import PromptTask


@dataclass(frozen=True)
class PromptText:
    """What a request asks with: the text of its last message, or its prompt. param: the field that it is in.

    text: None where it is not one text. earlier: role and text of the messages before it.
    """

    service: Service
    request: GenerationRequest
    param: str
    text: str | None
    earlier: tuple[tuple[str, str], ...] = ()

    def schema(self) -> dict[str, Any]:
        """Returns the schema of the fields that it asks for. Refuses one that asks for none."""
        _, task = self._read("schema_from_prompt")
        if task is None or not task.fields:
            message = "the prompt asks for no fields in a form of this model: send a schema"
            raise bad_request(message, "schema_from_prompt", "invalid_value")
        card = self.service.model(self.request.model).card
        is_parted = may_be_in_parts(self.request) and bool(texts_of(card, task).texts)
        return task.item_schema if is_parted else task.schema

    def ground(self, wanted: Wanted) -> Wanted:
        """Returns what an answer is held to with its spans taken from this text, where there are to be any."""
        request, spec = self.request, wanted.spec
        is_grounded = request.grounded or request.at_words
        if not isinstance(spec, ConstraintSpec) or spec.kind != "json_schema":
            if is_grounded:
                raise needs_schema(request)
            return wanted
        if not is_grounded and not has_span(spec.text):
            return wanted
        text, task = self._read("grounded" if is_grounded else wanted.param)
        tokenizer = self.service.model(request.model).tokenizer
        source = encode(lambda: source_of(text, task, tokenizer), self.param)
        options = SchemaOptions(text=source.read, is_grounded=is_grounded, at_words=request.at_words)
        # Kept only in part, it would be grounded in nothing.
        return Wanted(dataclasses.replace(spec, options=options), wanted.param, source=source)

    def _read(self, field: str) -> tuple[str, PromptTask | None]:
        if self.text is None:
            message = f"{field} takes one prompt, which is a text: send others in requests of their own"
            raise bad_request(message, self.param, "invalid_value")
        check_length(self.service, self.text, self.param)
        card = self.service.model(self.request.model).card
        return self.text, card.task_in([*self.earlier, ("user", self.text)])


def needs_schema(request: GenerationRequest) -> Exception:
    """Returns the refusal of an answer that is to be grounded and has no schema."""
    name = "grounded" if request.grounded else "at_words"
    message = f"{name} requires a JSON Schema, or schema_from_prompt=true"
    return bad_request(message, name, "invalid_value")
