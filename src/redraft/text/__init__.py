"""Text at the edges: tokenizer, chat template, incremental detokenizer, answers in parts; no tensors, no models."""

from redraft.text.answer import AnswerStream, Delta, End, ScoredToken
from redraft.text.calls import ToolCall
from redraft.text.prompts.reading import ReadPrompt
from redraft.text.tokenizer import TextTokenizer
from redraft.text.transcript import Content, Part, Reasoning, part_tokens

__all__ = [
    "AnswerStream",
    "Content",
    "Delta",
    "End",
    "Part",
    "ReadPrompt",
    "Reasoning",
    "ScoredToken",
    "TextTokenizer",
    "ToolCall",
    "part_tokens",
]
