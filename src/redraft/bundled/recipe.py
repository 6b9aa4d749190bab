"""The recipes that `redraft train` knows: those of the bundled model, and Sudoku."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from redraft.bundled import card
from redraft.bundled.data.extraction.records import training_record
from redraft.bundled.data.extraction.task import ExtractionExamples
from redraft.bundled.data.extraction.tokenizer import save_tokenizer, train_tokenizer
from redraft.bundled.data.families import BundledExamples
from redraft.bundled.data.record_examples import RecordExamples
from redraft.bundled.data.wide.examples import WideExamples
from redraft.bundled.objective import reader_losses
from redraft.bundled.sudoku import sudoku
from redraft.diffusion.settings import SamplerSettings
from redraft.model.config import FULL, SLIDING, AttentionShape, ModelConfig
from redraft.text import TextTokenizer
from redraft.training.data.examples import ExampleSource
from redraft.training.recipe import Recipe, TrainingData
from redraft.training.run.state import RunFolder
from redraft.training.settings import TrainingSettings, proven_settings
from redraft.utils.files import write_whole
from redraft.weights.card import Card, write_card
from redraft.weights.config.file import write_generation_config
from redraft.weights.fetch import BUNDLED_FOLDER

TOKENIZER_RECORDS = 60_000
SHIPPED_SETTINGS = SamplerSettings.of(max_new_tokens=256, steps=48, t_min=0.3, t_max=0.6)
"""The sampler settings of the bundled checkpoint."""
WIDE_SETTINGS = {
    "steps": 2250, "batch_size": 32, "canvases_per_example": 2, "learning_rate": 6e-4, "warmup_steps": 40,
    "decay_share": 0.7, "prompt_weight": 0.0, "validate_every": 750, "validation_answers": 32,
    "checkpoint_minutes": 5.0,
}  # fmt: skip
"""What the bundled model was trained with, from the weights of the one before it; a higher rate costs what those can.

Its prompts are not predicted: three quarters of the encoder's rows are not read out.
"""

MODEL = ModelConfig(
    vocab_size=3072,
    hidden_size=256,
    num_heads=4,
    layer_types=(SLIDING, SLIDING, FULL) * 2,
    sliding=AttentionShape(head_dim=64, num_kv_heads=2, rope_theta=1e4),
    full=AttentionShape(head_dim=128, num_kv_heads=1, rope_theta=1e6, rotated_fraction=0.25),
    sliding_window=256,
    dense_size=512,
    num_experts=8,
    experts_per_token=2,
    expert_size=160,
    canvas_length=64,
    max_context=4096,
    eos_ids=(1, 5),
)
"""10.8 M parameters, of which 6 M are active, and three thousand tokens, for short texts."""


def extract(*, easy_start: bool = True, **overrides: Any) -> Recipe:
    """Extraction of named fields as JSON."""
    settings = proven_settings(**{"steps": 6600, **overrides})
    return _recipe("extract", settings, ExtractionExamples, card.EXTRACTION, easy_start)


def bundled(*, easy_start: bool = True, **overrides: Any) -> Recipe:
    """The model that the bundled one began with: extraction, also from messy texts, normalizing, and fixing typos."""
    settings = proven_settings(**{"steps": 20_000, **overrides})
    return _recipe("bundled", settings, BundledExamples, card.BUNDLED, easy_start)


def wide(*, easy_start: bool = True, **overrides: Any) -> Recipe:
    """The bundled model: any field, conversations, eight languages, and honest refusals."""
    settings = proven_settings(**{**WIDE_SETTINGS, **overrides})

    def data(run: RunFolder) -> TrainingData:
        prepare_companions(run.companions, card.WIDE)
        return _training_data(run, settings, WideExamples, easy_start)

    return Recipe(
        model=MODEL, settings=settings, data=data, sampler=SHIPPED_SETTINGS, objective=reader_losses,
        identity={"recipe": "wide"},
    )  # fmt: skip


RECIPES: dict[str, Callable[..., Recipe]] = {"extract": extract, "bundled": bundled, "wide": wide, "sudoku": sudoku}
"""The recipes of `redraft train`, by name. easy_start: begin with copying and lists, for random weights."""


REPLAY_SOURCES: dict[str, Callable[[int, TextTokenizer], ExampleSource]] = {
    "extract": partial(ExtractionExamples, easy_start=False),
    "bundled": partial(BundledExamples, easy_start=False),
    "wide": partial(WideExamples, easy_start=False),
}
"""By a recipe's name, what makes the examples of its data for a step of so many, to be mixed into other training."""


def _recipe(
    name: str, settings: TrainingSettings, source: type[RecordExamples], card: Card, easy_start: bool
) -> Recipe:
    def data(run: RunFolder) -> TrainingData:
        prepare_companions(run.companions, card)
        return _training_data(run, settings, source, easy_start)

    return Recipe(model=MODEL, settings=settings, data=data, sampler=SHIPPED_SETTINGS, identity={"recipe": name})


def _training_data(
    run: RunFolder, settings: TrainingSettings, source: type[RecordExamples], easy_start: bool
) -> TrainingData:
    examples = source(settings.batch_size, TextTokenizer.load(run.companions), easy_start=easy_start)
    return TrainingData(examples, examples.validation(settings.validation_examples))


def prepare_companions(folder: Path, card: Card) -> None:
    """Writes tokenizer, chat template, generation_config.json and redraft.json (the card) into `folder`.

    A tokenizer that is there is kept, else the bundled checkpoint's is copied: checkpoints share its token ids. Without
    either, one is trained.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "tokenizer.json").exists():
        pass
    elif (BUNDLED_FOLDER / "tokenizer.json").exists():
        # tokenizer.json comes last: its presence means that the others are there.
        for name in ("tokenizer_config.json", "chat_template.jinja", "tokenizer.json"):
            write_whole(folder / name, (BUNDLED_FOLDER / name).read_bytes())
    else:
        # Natural values only: random words would displace pieces that real ones have in common.
        records = (training_record(0, index, scrambled=0.0) for index in range(TOKENIZER_RECORDS))
        save_tokenizer(train_tokenizer(text for record in records for text in (record.prompt, record.answer)), folder)
    ids = {"bos_token_id": MODEL.bos_id, "eos_token_id": list(MODEL.eos_ids), "pad_token_id": MODEL.pad_id}
    write_generation_config(folder, SHIPPED_SETTINGS.to_generation_config() | ids)
    write_card(folder, card)
