"""The extraction task as a training run sees it: companion files of its checkpoints, and the examples of each step."""

from pathlib import Path

from redraft.bundled.data.extraction.records import held_out_records, training_record
from redraft.bundled.data.extraction.tokenizer import save_tokenizer, train_tokenizer
from redraft.bundled.data.record import Record
from redraft.bundled.data.record_examples import DATA_SEED, RecordExamples
from redraft.diffusion.settings import SamplerSettings
from redraft.training.data.examples import Example
from redraft.utils.files import write_whole
from redraft.weights import write_generation_config
from redraft.weights.card import Card, write_card
from redraft.weights.fetch import BUNDLED_FOLDER

TOKENIZER_RECORDS = 60_000
VALIDATION_SEED = 1
"""Of held-out records; 0 made the test set."""

SHIPPED_SETTINGS = SamplerSettings(max_new_tokens=256, steps=48)
PURPOSE = "Extracts named fields from a short text as JSON: Extract name, date, amount as JSON: <your text>"
LIMITS = "It can't chat, answer questions or follow other instructions, and knows only the fields it was trained on."
EXAMPLES = (
    "Extract name, date, amount as JSON: Hi, this is Ana Kovacs. I paid 42,50 EUR on 3 March 2024 and still have no receipt.",
    "Extract order_id, product, quantity, city as JSON: ORD-48213: 3 x wireless keyboard, ship to Lyon, customer Piet Jansen",
    "Extract level, service, status, duration as JSON: 2024-05-11 09:14:02 ERROR billing-worker: POST /api/v1/invoices -> 503 in 1204 ms",
    "Extract name, doctor, date, time as JSON: Reminder for Lena Berg: your appointment with Dr. Novak is on 12 June at 14:30, room B12.",
    "Extract flight, origin, destination, seat as JSON: Boarding pass: Marta Silva, flight LH 402 from Porto to Helsinki, seat 14C.",
    "Extract street, postcode, city, phone as JSON: Please send it to Lena Berg, Elm Street 5, 10115 Berlin, phone 030 1234567.",
)


CARD = Card(purpose=PURPOSE, limits=LIMITS, examples=EXAMPLES, single_turn=True)


def prepare_companions(folder: Path, card: Card) -> None:
    """Writes tokenizer, chat template, generation_config.json and redraft.json (the card) into `folder`.

    The bundled checkpoint's tokenizer is taken where there is one: its ids are the format that checkpoints share.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "tokenizer.json").exists():
        pass
    elif (BUNDLED_FOLDER / "tokenizer.json").exists():
        # tokenizer.json last: it is what says that the others are there.
        for name in ("tokenizer_config.json", "chat_template.jinja", "tokenizer.json"):
            write_whole(folder / name, (BUNDLED_FOLDER / name).read_bytes())
    else:
        # Of natural values only: random words would take the places of pieces that real ones have in common.
        records = (training_record(0, index, scrambled=0.0) for index in range(TOKENIZER_RECORDS))
        save_tokenizer(train_tokenizer(text for record in records for text in (record.prompt, record.answer)), folder)
    settings = SHIPPED_SETTINGS.to_generation_config() | {"bos_token_id": 2, "eos_token_id": [1, 5], "pad_token_id": 0}
    write_generation_config(folder, settings)
    write_card(folder, card)


class ExtractionExamples(RecordExamples):
    """Extraction alone."""

    def record(self, index: int) -> Record:
        return training_record(DATA_SEED, index)

    def validation(self, count: int) -> list[Example]:
        """Seen phrasings, half of the values from held-out lists."""
        return [self.example(record) for record in held_out_records(count, seen=True, seed=VALIDATION_SEED)]
