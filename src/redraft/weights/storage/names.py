"""Maps tensor names of `Transformer.state_dict` to those in a checkpoint, and recognizes what else it may hold."""

import re
from collections.abc import Collection

DECODER = "model.decoder."
ENCODER = "model.encoder.language_model."
"""The two stacks of the released layout: one of weights, seen twice."""
_ENCODER_SCALAR = re.compile(r"layers\.(\d+)\.encoder_layer_scalar")
_VISION = ("model.encoder.vision_tower.", "model.encoder.embed_vision.")


def checkpoint_name(name: str) -> str:
    """Returns the name in the checkpoint of the tensor `name` of our state_dict."""
    if match := _ENCODER_SCALAR.fullmatch(name):
        return f"{ENCODER}layers.{match[1]}.layer_scalar"
    return DECODER + name


def scale_name(name: str) -> str:
    """Returns the name of the scales of a quantized tensor, whose values keep its name (ours or the checkpoint's)."""
    return name + "_scale"


def is_unused(name: str) -> bool:
    """Tells whether a tensor belongs to the vision tower, which is kept but not read."""
    return name.startswith(_VISION)


def is_tied_copy(name: str, wanted: Collection[str]) -> bool:
    """Tells whether `name` is a redundant copy of a tied weight: the output matrix, or a weight of the encoder's stack.

    `wanted` are the names in the checkpoint of all tensors that are read. Some writers store such copies; they are
    ignored.
    """
    if name == "lm_head.weight":
        return True
    rest = name.removeprefix(ENCODER)
    if rest == name or rest.endswith(".layer_scalar"):
        return False
    return rest.startswith(("embed_tokens.", "layers.", "norm.")) and DECODER + rest in wanted
