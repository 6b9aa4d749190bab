"""Text at the edges: tokenizer, chat template and incremental detokenizer. Nothing here knows of tensors or models."""

from redraft.text.detokenizer import Detokenizer
from redraft.text.template import ChatTemplate, TemplateLimits
from redraft.text.tokenizer import TextTokenizer

__all__ = ["ChatTemplate", "Detokenizer", "TemplateLimits", "TextTokenizer"]
