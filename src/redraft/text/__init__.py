"""Text at the edges: tokenizer, chat template, incremental detokenizer, answers in parts; no tensors, no models."""

from redraft.text.answer import AnswerStream, Delta, End, ScoredToken, StopCutter
from redraft.text.calls import ToolCall
from redraft.text.detokenizer import Detokenizer
from redraft.text.template import ChatTemplate, TemplateLimits
from redraft.text.tokenizer import TextTokenizer
from redraft.text.transcript import Content, Part, Reasoning, Transcript

__all__ = [
    "AnswerStream",
    "ChatTemplate",
    "Content",
    "Delta",
    "Detokenizer",
    "End",
    "Part",
    "Reasoning",
    "ScoredToken",
    "StopCutter",
    "TemplateLimits",
    "TextTokenizer",
    "ToolCall",
    "Transcript",
]
