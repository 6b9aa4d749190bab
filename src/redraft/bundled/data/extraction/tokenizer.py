"""The bundled model's tokenizer: byte-level BPE, cut so that a value has the same tokens in the text as in the JSON."""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.pre_tokenizers import PreTokenizer

VOCAB_SIZE = 3072
SPECIAL_TOKENS = ("<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>")
RESERVED_TOKENS = 10
"""Unused ids after the special tokens, so that later families can have their own without moving the others."""

FUNCTION_WORDS = """the to of for and at on in is a an we you your our will by with from has have had be been are was were it
its this that please not no my me as or but if so can could would do does us he she his her they their there here who
which what when where all any also after before until about into over under up out just now still""".split()

# Pieces are never merged with what is between them: a value's first token does not depend on whether a space or a quote
# precedes it. Only function words include their space, since no value starts with one; the separators of JSON objects
# are one token each; digits and other characters stand alone.
_PIECES = (
    r"""\{"|": "|", "|"\}|": null|, "| (?:"""
    + "|".join(FUNCTION_WORDS)
    + r""")(?![\w@./:-]*[\w@/_])|\p{L}+|\p{N}| |\s|[^\s\p{L}\p{N}]"""
)

CHAT_TEMPLATE = """{{ bos_token }}{% for message in messages %}<|turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}
{{ message['content'] | trim }}<turn|>
{% endfor %}{% if add_generation_prompt %}<|turn>model
{% endif %}"""


def train_tokenizer(texts: Iterable[str], vocab_size: int = VOCAB_SIZE) -> Tokenizer:
    """Trains the tokenizer on raw texts; the same texts give the same one."""
    tokenizer = Tokenizer(models.BPE())
    pieces: list[PreTokenizer] = [
        pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(pieces)
    tokenizer.decoder = decoders.ByteLevel()
    reserved = [f"<unused{i}>" for i in range(RESERVED_TOKENS)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIAL_TOKENS, *reserved],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes tokenizer.json, tokenizer_config.json and chat_template.jinja into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "eos_token": "<turn|>",
        "bos_token": "<bos>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
