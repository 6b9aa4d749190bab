"""Records of which one value is open: how often it is written right where all others are given."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from redraft.api import Model, Prompt
from redraft.constraints.language.blanks import BLANK
from redraft.evaluation.cases import Case
from redraft.evaluation.subject import ModelSubject, Response


def with_one_open(cases: Sequence[Case]) -> dict[str, str]:
    """Returns, by prompt, each right record with one of its values open: the first of the first, and so on in turn."""
    found = {}
    for number, case in enumerate(cases):
        texts = {name: value for name, value in json.loads(case.answer).items() if isinstance(value, str) and value}
        if texts:
            name = list(texts)[number % len(texts)]
            written = f'"{name}": {json.dumps(texts[name], ensure_ascii=False)}'
            found[case.prompt] = case.answer.replace(written, f'"{name}": "{BLANK}"')
    return found


class FillSubject(ModelSubject):
    """A model that fills the blank of a text, which it has for each prompt."""

    def __init__(self, model: Model, settings: Mapping[str, Any], texts: Mapping[str, str]) -> None:
        super().__init__(model, settings)
        self._texts = texts

    def respond(self, prompt: Prompt) -> Response:
        filled = self._model.fill(self._texts[str(prompt)], prompt=prompt, **self._settings)
        return Response.of_generation(filled.text, filled.result.generation)
