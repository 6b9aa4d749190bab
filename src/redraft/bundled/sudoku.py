"""The recipe of a small model that solves Sudoku, and nothing else, from random weights."""

from functools import partial
from typing import Any

import torch

from redraft.bundled.data.sudoku.examples import SudokuExamples
from redraft.bundled.data.sudoku.puzzles import BOX, CELLS, COLUMN, ROW, SIDE
from redraft.bundled.data.sudoku.tokens import (
    ANSWER_TOKENS,
    BOS,
    EOS,
    PAD,
    PROMPT_TOKENS,
    VALUES,
    VOCAB_SIZE,
    cell_token,
    digit_token,
    write_tokenizer,
)
from redraft.bundled.objective import weighed_losses
from redraft.diffusion.settings import SamplerSettings
from redraft.model.config import FULL, SLIDING, AttentionShape, ModelConfig
from redraft.model.transformer import Transformer
from redraft.training.initialization import initialize
from redraft.training.recipe import Recipe, TrainingData
from redraft.training.run.state import RunFolder
from redraft.training.settings import proven_settings
from redraft.weights.card import Card, write_card
from redraft.weights.config.file import write_generation_config

MODEL = ModelConfig(
    vocab_size=VOCAB_SIZE,
    hidden_size=128,
    num_heads=4,
    # The window holds everything: these layers see as much as the last, and have values of their own beside the keys.
    layer_types=(SLIDING,) * 5 + (FULL,),
    sliding=AttentionShape(head_dim=32, num_kv_heads=4, rope_theta=1e4),
    full=AttentionShape(head_dim=32, num_kv_heads=4, rope_theta=1e4, rotated_fraction=0.5),
    sliding_window=256,
    dense_size=256,
    num_experts=1,
    experts_per_token=1,
    expert_size=64,
    canvas_length=ANSWER_TOKENS,
    max_context=256,
    pad_id=PAD,
    bos_id=BOS,
    eos_ids=(EOS,),
)
"""1.3 M parameters: six layers without a choice of experts."""
SAMPLER = SamplerSettings.of(max_new_tokens=ANSWER_TOKENS, steps=8, t_min=0.3, t_max=0.6)
ENCODER_WEIGHT = 0.1
"""What the causal pass has to guess of a solution's first digits is not needed: canvases are to learn."""
SETTINGS = {
    "steps": 7000, "batch_size": 8, "canvases_per_example": 8, "unrolling_steps": 2, "prompt_weight": 0.0,
    "learning_rate": 2e-3, "warmup_steps": 50, "ema": 0.999, "validate_every": 1000, "validation_examples": 256,
    "validation_answers": 256, "checkpoint_minutes": 5.0,
}  # fmt: skip
CARD = Card(
    purpose="Solves Sudoku puzzles that have one solution: 81 digits, row by row, with a dot for each open cell.",
    limits="It knows nothing else, and answers any other prompt with digits.",
    examples=("53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79",),
    example_names=("puzzle",),
    single_turn=True,
)


def sudoku(*, easy_start: bool = True, **overrides: Any) -> Recipe:  # noqa: ARG001 - its data has no easy start
    """A model of 1.3 M parameters that solves Sudoku puzzles, with the given cells pinned on its canvas."""
    settings = proven_settings(**{**SETTINGS, **overrides})

    def data(run: RunFolder) -> TrainingData:
        write_tokenizer(run.companions)
        ids = {"bos_token_id": BOS, "eos_token_id": [EOS], "pad_token_id": PAD}
        write_generation_config(run.companions, SAMPLER.to_generation_config() | ids)
        write_card(run.companions, CARD)
        examples = SudokuExamples(settings.batch_size)
        return TrainingData(examples, examples.validation(settings.validation_examples))

    return Recipe(
        model=MODEL, settings=settings, data=data, sampler=SAMPLER, initialize=initialize_cells,
        objective=partial(weighed_losses, encoder_weight=ENCODER_WEIGHT), identity={"recipe": "sudoku"},
    )  # fmt: skip


@torch.no_grad()
def initialize_cells(model: Transformer, seed: int) -> None:
    """Draws random weights; a cell's token begins as the sum of its row, column, box and digit.

    What cells have in common is then there from the first step, instead of being found for each of the 81 by itself.
    """
    initialize(model, seed)
    rows = model.embed_tokens.weight
    generator = torch.Generator().manual_seed(seed + 1)
    places = torch.randn(3, SIDE, rows.shape[1], generator=generator) * rows.shape[1] ** -0.5
    for cell in range(CELLS):
        place = places[0, ROW[cell]] + places[1, COLUMN[cell]] + places[2, BOX[cell]]
        for digit in range(VALUES):
            token = cell_token(cell, digit)
            own = rows[digit_token(digit)] if digit else rows[cell_token(0, 0)]
            rows[token] = (place + own) / 2


assert MODEL.max_context >= PROMPT_TOKENS + ANSWER_TOKENS
