"""The recipes of the bundled model: their settings, their model, and the companion files of their checkpoints."""

import json
from pathlib import Path

import pytest

from redraft.bundled import card
from redraft.bundled.recipe import MODEL, RECIPES, REPLAY_SOURCES, SHIPPED_SETTINGS, extract, prepare_companions
from redraft.diffusion.settings import SamplerSettings
from redraft.text import TextTokenizer
from redraft.weights.card import read_card
from redraft.weights.checkpoint import Checkpoint
from redraft.weights.config.file import read_generation_config
from redraft.weights.fetch import BUNDLED_FOLDER


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_takes_overrides_and_checks_them(name: str):
    make = RECIPES[name]
    assert make().settings.steps > 1
    assert make(steps=7, seed=3).settings.seed == 3
    assert make(steps=7).identity == {"recipe": name}
    with pytest.raises(ValueError, match="batch_size is 0"):
        make(batch_size=0)
    with pytest.raises(TypeError, match="step"):
        make(step=7)


def test_the_model_is_the_bundled_one_and_fits_its_task():
    assert extract().model == MODEL == Checkpoint.open(BUNDLED_FOLDER).config
    assert MODEL.max_context > 10 * MODEL.canvas_length
    assert all(token < MODEL.vocab_size for token in MODEL.eos_ids)


def test_it_is_trained_for_the_settings_that_are_shipped():
    shipped = SamplerSettings.from_generation_config(read_generation_config(BUNDLED_FOLDER) or {})
    assert extract().sampler == SHIPPED_SETTINGS == shipped


def test_the_shipped_card_is_the_recipes():
    assert read_card(BUNDLED_FOLDER) == card.WIDE


@pytest.mark.parametrize("name", REPLAY_SOURCES)
def test_a_recipes_data_can_be_replayed_from_its_first_record_on(name: str):
    tokenizer = TextTokenizer.load(BUNDLED_FOLDER)
    first = REPLAY_SOURCES[name](2, tokenizer)(0)
    assert 1 <= len(first) <= 2
    # The easy start of a new model, random tokens to copy, is left out.
    for example in first:
        assert tokenizer.decode(example.answer) not in tokenizer.decode(example.prompt)
    assert REPLAY_SOURCES[name](2, tokenizer)(0) == first


def test_all_of_the_bundled_models_recipes_can_be_replayed():
    assert REPLAY_SOURCES.keys() == RECIPES.keys() - {"sudoku"}


def test_companions(tmp_path: Path):
    prepare_companions(tmp_path, card.EXTRACTION)
    assert {path.name for path in tmp_path.iterdir()} == {
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "generation_config.json",
        "redraft.json",
    }
    config = json.loads((tmp_path / "generation_config.json").read_text())
    assert config == json.loads((BUNDLED_FOLDER / "generation_config.json").read_text())
    assert SamplerSettings.from_generation_config(config) == SHIPPED_SETTINGS
    assert (config["bos_token_id"], config["pad_token_id"]) == (MODEL.bos_id, MODEL.pad_id)
    assert tuple(config["eos_token_id"]) == MODEL.eos_ids
    assert read_card(tmp_path) == card.EXTRACTION


def test_a_tokenizer_that_is_there_is_kept(tmp_path: Path):
    (tmp_path / "tokenizer.json").write_text("one of its own")
    prepare_companions(tmp_path, card.EXTRACTION)
    assert (tmp_path / "tokenizer.json").read_text() == "one of its own"
    assert (tmp_path / "redraft.json").exists()
