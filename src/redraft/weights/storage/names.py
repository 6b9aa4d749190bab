"""Names of tensors: ours (`Transformer.state_dict`) ↔ the checkpoint's, and what else a checkpoint may hold."""

import re
from collections.abc import Collection

_OURS = "model.decoder."
_ENCODER = "model.encoder.language_model."
_ENCODER_SCALAR = re.compile(r"layers\.(\d+)\.encoder_layer_scalar")
_UNUSED = ("model.encoder.vision_tower.", "model.encoder.embed_vision.")


def checkpoint_name(name: str) -> str:
    """Where the checkpoint keeps the tensor that our state_dict calls `name`."""
    if match := _ENCODER_SCALAR.fullmatch(name):
        return f"{_ENCODER}layers.{match[1]}.layer_scalar"
    return _OURS + name


def scale_name(name: str) -> str:
    """What the scales of a quantized tensor are called, beside its values, which keep its name; ours and the files'."""
    return name + "_scale"


def is_unused(name: str) -> bool:
    """Whether a tensor of a checkpoint belongs to the vision part, which passes through unread."""
    return name.startswith(_UNUSED)


def is_tied_copy(name: str, wanted: Collection[str]) -> bool:
    """Whether `name` is a copy that tying makes redundant: the output matrix, or a weight of the encoder's own stack.

    `wanted` are the checkpoint's names of all tensors that are read. Some writers store such copies; they are ignored.
    """
    if name == "lm_head.weight":
        return True
    rest = name.removeprefix(_ENCODER)
    if rest == name or rest.endswith(".layer_scalar"):
        return False
    return rest.startswith(("embed_tokens.", "layers.", "norm.")) and _OURS + rest in wanted
