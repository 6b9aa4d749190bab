"""The bundled model: what comes with the package runs, is what it says it is, and is not worse than it was shipped."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

import redraft
from redraft.bundled.data.families import BundledExamples
from redraft.diffusion.randomness import Counter
from redraft.evaluation.evaluate import evaluate, summarise
from redraft.evaluation.subject import ModelSubject
from redraft.evaluation.tasks import TASKS
from redraft.training.data.examples import make_batch
from redraft.training.objective import losses
from redraft.weights.checkpoint import Checkpoint, load_model
from redraft.weights.fetch import BUNDLED_FOLDER


@pytest.fixture(scope="module")
def model() -> redraft.Model:
    return redraft.load()


def test_what_is_shipped():
    weights = list(BUNDLED_FOLDER.glob("*.safetensors"))
    assert [file.name for file in weights] == ["model.safetensors"]
    assert weights[0].stat().st_size <= 13_000_000
    assert json.loads((BUNDLED_FOLDER / "config.json").read_text())["dtype"] == "bfloat16"
    assert {file.suffix for file in BUNDLED_FOLDER.iterdir()} <= {".json", ".jinja", ".safetensors"}
    config = Checkpoint.open(BUNDLED_FOLDER).config
    assert config.num_experts > config.experts_per_token >= 1
    assert len(set(config.layer_types)) == 2
    assert config.canvas_length == 64


RIGHT = (
    '{"name": "Ana Kovacs", "date": "3 March 2024", "amount": "42,50 EUR"}',
    '{"order_id": "ORD-48213", "product": "wireless keyboard", "quantity": "3", "city": "Lyon"}',
    '{"level": "ERROR", "service": "billing-worker", "status": "503", "duration": "1204 ms"}',
    '{"name": "Lena Berg", "doctor": "Dr. Novak", "date": "12 June", "time": "14:30"}',
    '{"customer": "Ms Berg", "due date": "15 June 2024", "total_amount": "1.250,00 EUR"}',
    '[{"name": "Anna Berg", "city": "Rome"}, {"name": "Bob Stone", "city": "Paris"}]',
    "2024-03-03",
    "1234.50 EUR",
    "21:05",
    "0.85 kg",
)


def test_every_shipped_example_is_answered_right(model):
    assert [model.generate(prompt, seed=1).text for prompt in model.card.examples] == list(RIGHT)


@pytest.mark.parametrize("seed", range(10))
def test_the_example_of_the_readme_is_answered_right_whatever_the_seed(model, seed):
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert model.card.examples[0] in readme
    assert model.generate(model.card.examples[0], mode="diffusion", seed=seed).text == RIGHT[0]


def test_it_copies_what_the_prompt_says(model):
    result = model.generate(
        "Extract email, city as JSON: Please write to marta.silva@example.org, I live in Porto.", seed=1
    )
    assert json.loads(result.text) == {"email": "marta.silva@example.org", "city": "Porto"}
    assert result.tokens_per_forward > 1


@pytest.mark.parametrize(("name", "seen", "unseen"), [("extract", 0.7, 0.55), ("normalize", 0.8, 0.55)])
def test_it_is_as_good_as_it_was_shipped(model, name, seen, unseen):
    """Floors well below the measured scores (README): with 12 examples of a kind, chance moves them by 14 points."""
    task = TASKS[name]
    summary = summarise(evaluate(ModelSubject(model, {"seed": 0}), task.cases(12), task.score))
    assert summary["exact_seen"] >= seen
    assert summary["exact_unseen"] >= unseen
    assert summary.get("valid_json", 1) >= 0.85


@pytest.mark.parametrize(
    ("prompt", "warning"),
    [
        (
            "Extract iban, name, amount, invoice_id as JSON: DE89 3704 0044 0532 0130 00 / R. Curci-Vandermeer / "
            "1'204,99 CHF / inv. QX-2291-77b",
            "does not stand in the text",
        ),
        ("What is the capital of France?", "the model says that this is not what it is for"),
    ],
)
def test_it_says_where_an_answer_may_be_wrong(model, prompt, warning):
    results = (model.generate(prompt, mode="diffusion", seed=seed) for seed in range(1, 9))
    assert any(warning in one for result in results for one in result.warnings)


def test_decomposed_accents_come_back_as_they_were(model):
    name = "Ame\u0301lie"
    *events, result = model.stream(f"Extract name as JSON: Hi, this is {name}.", mode="diffusion", seed=1)
    assert result.text == f'{{"name": "{name}"}}'
    assert result.warnings == ()
    assert "".join(event.text for event in events if isinstance(event, redraft.Committed)) == result.text
    assert [event.text for event in events if isinstance(event, redraft.Draft)][-1] == result.text
    assert model.generate(f"Extract name as JSON: Hi, this is {name}.", seed=1).text == result.text


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("Extract name, city as JSON: Hello,\r\n\r\nI am Jane Doe\r\nfrom Porto\r\n",
         {"name": "Jane Doe", "city": "Porto"}),
        (
            "Extract name, amount as JSON: Jane\u00a0Doe paid 1\u202f200,00\u00a0\u20ac today",
            {"name": "Jane Doe", "amount": "1 200,00 \u20ac"},
        ),
        (
            "Extract name, amount as JSON: \u201cJane O\u2019Neil\u201d paid 5 \u20ac",
            {"name": "Jane O\u2019Neil", "amount": "5 \u20ac"},
        ),
        ("Extract name as JSON: \u200bJane\u200b Doe here\ufeff", {"name": "Jane Doe"}),
        (
            "Extract name, date as JSON: Jane Doe \u2013 arriving 12\u20115\u20112024",
            {"name": "Jane Doe", "date": "12-5-2024"},
        ),
    ],
)  # fmt: skip
def test_characters_of_mails_and_office_programs_are_read(model, prompt, answer):
    result = model.generate(prompt, seed=1)
    assert json.loads(result.text) == answer
    assert result.warnings == ()


@torch.no_grad()
def test_it_looks_at_its_canvas(model):
    """Not only at what the last step believed: beside the same beliefs, right tokens say more than noise."""
    plain = load_model(BUNDLED_FOLDER, torch.float32)
    examples = BundledExamples(8, model.tokenizer, easy_start=False).validation(24)
    batch = make_batch(examples, plain.config.canvas_length, plain.config.vocab_size, Counter(0))
    batch = dataclasses.replace(
        batch,
        conditioned=torch.ones_like(batch.conditioned),
        unrolled=torch.ones_like(batch.unrolled),
        noised=batch.noised.random_(10, plain.config.vocab_size, generator=torch.Generator().manual_seed(0)),
    )
    found = [
        float(losses(plain, dataclasses.replace(batch, shown=torch.full_like(batch.shown, shown))).canvas)
        for shown in (False, True)
    ]
    assert found[1] < found[0] / 4


def test_it_runs_in_bfloat16_too(model):
    half = redraft.load(precision="bf16")
    assert half.transformer.embed_tokens.weight.dtype == torch.bfloat16
    prompt = model.card.examples[0]
    assert (
        json.loads(half.generate(prompt, seed=1).text).keys() == json.loads(model.generate(prompt, seed=1).text).keys()
    )
