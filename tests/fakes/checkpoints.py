"""A whole tiny checkpoint in a folder: random weights, a real small tokenizer with a template, settings, a card."""

import json
from pathlib import Path

from redraft.weights.save import save_checkpoint as save_weights
from tests.fakes.models import tiny_model
from tests.fakes.tokenizers import (
    SPECIAL_TOKENS,
    THINKING_TEMPLATE,
    byte_level_tokenizer,
    gemma_tokenizer,
    save_checkpoint,
    thinking_tokenizer,
)

CARD = {
    "purpose": "A tiny model for tests.",
    "limits": "It can't do anything.",
    "single_turn": True,
    "examples": ["Say it's fine", "Count to three"],
}


def tiny_checkpoint(folder: Path, *, max_context: int = 256, **changes: object) -> Path:
    """Answers are noise, but the same for the same seed, and all of 24 tokens unless an EOS comes first."""
    tokenizer = gemma_tokenizer()
    model = tiny_model(vocab_size=tokenizer.get_vocab_size(), max_context=max_context, **changes)
    save_weights(folder, model.config, model.state_dict())
    save_checkpoint(folder, tokenizer)
    settings = {"max_new_tokens": 24, "max_denoising_steps": 6, "confidence_threshold": 0.2, "eos_token_id": 1}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    (folder / "redraft.json").write_text(json.dumps(CARD))
    return folder


def trainable_checkpoint(folder: Path) -> Path:
    """A tiny checkpoint that stops at what its template writes after an answer, as one that is fine-tuned must."""
    tiny_checkpoint(folder)
    settings = json.loads((folder / "generation_config.json").read_text())
    ends = [SPECIAL_TOKENS.index("<eos>"), SPECIAL_TOKENS.index("<turn|>")]
    (folder / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": ends}))
    return folder


def thinking_checkpoint(folder: Path, **changes: object) -> Path:
    """Weights and a byte-level tokenizer whose template knows tools and thoughts; no settings, no card."""
    tokenizer = thinking_tokenizer(byte_level_tokenizer)
    network = tiny_model(vocab_size=tokenizer.get_vocab_size(), **changes)
    save_weights(folder, network.config, network.state_dict())
    save_checkpoint(folder, tokenizer, chat_template=THINKING_TEMPLATE)
    return folder
