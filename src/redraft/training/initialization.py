"""The weights a new model starts from: random ones, or another checkpoint's."""

from pathlib import Path

import torch
from torch import nn

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
    """Opens the checkpoint that a run starts from.

    is_frozen: its weights stay as they are, so they may be quantized. ValueError if it is not a checkpoint, is
    quantized but not frozen, or has a different shape than `config`.
    """
    checkpoint = Checkpoint.open(path)
    if not is_frozen:
        checkpoint.check_unquantized()
    if config != checkpoint.config:
        raise ValueError(
            f"{path} holds a model of a different shape than the recipe's; start from another one, or without one"
        )
    return checkpoint
