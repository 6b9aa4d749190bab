"""redraft: DiffusionGemma, the language model that denoises a whole canvas of tokens at once.

>>> import redraft
>>> model = redraft.load()
>>> result = model.generate("Extract city, date as JSON: See you in Porto on 4 May.", seed=1)
>>> result.text, result.finish_reason
('{"city": "Porto", "date": "4 May"}', 'stop')
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redraft.api import Committed, Draft, Model, Result, load, read_card
    from redraft.async_engine import Answer, CancelledAnswer, Engine, Failure
    from redraft.diffusion.settings import SETTINGS, SamplerSettings, Setting
    from redraft.engine import Limits, QueueFull, Shutdown
    from redraft.generation import DenoisingStep, Generation
    from redraft.weights.card import Card

__version__ = "0.1.0"
__all__ = [
    "SETTINGS",
    "Answer",
    "CancelledAnswer",
    "Card",
    "Committed",
    "DenoisingStep",
    "Draft",
    "Engine",
    "Failure",
    "Generation",
    "Limits",
    "Model",
    "QueueFull",
    "Result",
    "SamplerSettings",
    "Setting",
    "Shutdown",
    "load",
    "read_card",
]

_OF_ENGINE = {"Answer", "CancelledAnswer", "Engine", "Failure", "Limits", "QueueFull", "Shutdown"}
_OF_SETTINGS = {"SETTINGS", "SamplerSettings", "Setting"}


def __getattr__(name: str) -> object:
    # Importing torch takes a second: the command's help and its refusals need not wait for it, and ctrl-C meanwhile
    # is heard as everywhere else.
    if name in _OF_SETTINGS:
        from redraft.diffusion import settings

        return getattr(settings, name)
    if name in __all__:
        from redraft import api, async_engine

        return getattr(async_engine if name in _OF_ENGINE else api, name)
    raise AttributeError(f"module 'redraft' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
