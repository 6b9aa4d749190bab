"""The weights a new model starts from."""

import torch
from torch import nn

from redraft.model.transformer import Transformer

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
