"""redraft: DiffusionGemma, the language model that denoises a whole canvas of tokens at once.

>>> import redraft
>>> model = redraft.load()
>>> result = model.generate("Extract city, date as JSON: See you in Porto on 4 May.", seed=1)
>>> result.text, result.finish_reason
('{"city": "Porto", "date": "4 May"}', 'stop')
"""

from typing import TYPE_CHECKING

from redraft.utils.signals import delay_interrupt
from redraft.utils.threads import configure_threads

if TYPE_CHECKING:
    from redraft.answers import AnswerArguments, CancelledAnswer, Committed, Draft, Failure, Result
    from redraft.api import Model
    from redraft.async_engine import Answer, Engine
    from redraft.decisions import Decision, TypedQuestion
    from redraft.diffusion.settings import SETTINGS, SamplerArguments, SamplerSettings, Setting
    from redraft.diffusion.start import CanvasStart
    from redraft.engine import Limits, QueueFull, Shutdown
    from redraft.generation.result import DenoisingStep, Generation
    from redraft.loading import load
    from redraft.weights.card import Card
    from redraft.weights.fetch import read_card

configure_threads()  # before anything imports torch

__version__ = "0.1.0"
__all__ = [
    "SETTINGS",
    "Answer",
    "AnswerArguments",
    "CancelledAnswer",
    "CanvasStart",
    "Card",
    "Committed",
    "Decision",
    "DenoisingStep",
    "Draft",
    "Engine",
    "Failure",
    "Generation",
    "Limits",
    "Model",
    "QueueFull",
    "Result",
    "SamplerArguments",
    "SamplerSettings",
    "Setting",
    "Shutdown",
    "TypedQuestion",
    "load",
    "read_card",
]

SETTINGS_NAMES = frozenset({"SETTINGS", "SamplerArguments", "SamplerSettings", "Setting"})


def __getattr__(name: str) -> object:
    # Importing torch takes a second, which the command line's help and refusals need not wait for. Some of what torch
    # imports takes any exception for a missing package, KeyboardInterrupt too.
    if name in SETTINGS_NAMES:
        from redraft.diffusion import settings

        return getattr(settings, name)
    if name == "read_card":
        from redraft.weights.fetch import read_card

        return read_card
    if name in __all__:
        with delay_interrupt():
            from redraft import answers, api, async_engine, loading

        globals()[name] = found = (vars(answers) | vars(api) | vars(async_engine) | vars(loading))[name]
        return found
    raise AttributeError(f"module 'redraft' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
