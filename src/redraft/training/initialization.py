"""The weights a new model starts from: random ones, or another checkpoint's."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from redraft.model.config import ModelConfig
from redraft.model.transformer import Transformer
from redraft.weights.checkpoint import Checkpoint

BRANCH_NORM = 0.25
FINAL_NORM = 0.3


def initialize(model: Transformer, seed: int) -> None:
    """Draws the weights of a new model: matrices normal with standard deviation 1/sqrt(inputs), most norms at 1.

    Attention scores are not scaled, and queries and keys are normalized, so the weights of their two norms determine
    the size of the scores. They start such that scores have size 1; at 1 they would give sqrt(head size), and a softmax
    that is nearly one-hot and hardly learns. Branches start small beside the residual, which then is the embedding of
    the token itself: the final norm keeps the tied output from being certain of that token.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2:
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5, generator=generator)
        elif name.endswith(("q_norm.weight", "k_norm.weight")):
            nn.init.constant_(parameter, parameter.shape[0] ** -0.25)
        elif name.endswith(("post_attention_layernorm.weight", "post_feedforward_layernorm.weight")):
            nn.init.constant_(parameter, BRANCH_NORM)
        elif name == "norm.weight":
            nn.init.constant_(parameter, FINAL_NORM)
        else:
            nn.init.ones_(parameter)


def open_start(path: Path, config: ModelConfig, *, is_frozen: bool = False) -> Checkpoint:
    """Opens the checkpoint that a run starts from; only its vocabulary may be another than `config`'s.

    is_frozen: its weights stay as they are, so they may be quantized. ValueError if it is not a checkpoint, is
    quantized but not frozen, or has a different shape than `config`.
    """
    checkpoint = Checkpoint.open(path)
    if not is_frozen:
        checkpoint.check_unquantized()
    if dataclasses.replace(config, vocab_size=checkpoint.config.vocab_size) != checkpoint.config:
        raise ValueError(
            f"{path} holds a model of a different shape than the recipe's; start from another one, or without one"
        )
    return checkpoint


def start_weights(
    start: Checkpoint, config: ModelConfig, tokenizer: Path, *, dtype: torch.dtype | None = torch.float32
) -> Mapping[str, Tensor]:
    """Reads the weights of `start`, in `dtype` or as they are stored: then they are views of the file.

    The embedding is for the vocabulary of tokenizer.json in `tokenizer`.
    """
    weights = dict(start.load(dtype=dtype, device="cpu"))
    if start.config.vocab_size != config.vocab_size:
        files = (folder / "tokenizer.json" for folder in (start.folder, tokenizer))
        weights["embed_tokens.weight"] = carry_embedding(
            weights["embed_tokens.weight"].float(), *map(Tokenizer.from_file, map(str, files))
        )
    return weights


def carry_embedding(rows: Tensor, old: Tokenizer, new: Tokenizer) -> Tensor:
    """Returns the embedding [V', H] for the vocabulary of `new`, from `rows` [V, H] of `old`'s.

    A token that both have keeps its row. Another gets the mean of the rows of the tokens that `old` writes its text
    with: near enough to begin with.
    """
    known = old.get_vocab()
    carried = rows.new_zeros(new.get_vocab_size(), rows.shape[1])
    for text, token in new.get_vocab().items():
        pieces = [known[text]] if text in known else old.encode(new.decode([token]), add_special_tokens=False).ids
        carried[token] = rows[pieces].mean(0)
    return carried
