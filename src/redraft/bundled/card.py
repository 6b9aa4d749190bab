"""The cards of the bundled model and of the model for extraction that it starts from."""

from redraft.bundled.data import normalization
from redraft.bundled.data.extraction.phrasings import KINDS
from redraft.bundled.data.wide.grammar import read_table
from redraft.bundled.data.wide.records import REFUSAL
from redraft.text.prompts.values import UNITS
from redraft.weights.card import Card

EXTRACTION_FORM = "Extract {fields} as JSON: {text}"
NORMALIZATION_FORMS = (
    *(f"Write the {name} as {form}: {{text}}" for name, kind in normalization.KINDS.items() for form in kind.forms),
    *(f"Write the {kind} in {unit}: {{text}}" for kind, units in UNITS.items() for unit in units),
)
REPAIR_FORM = "Fix the typos: {text}"
MAX_PROMPT_TOKENS = 240
"""The longest of 4,000 training prompts has 238."""

EXTRACTION = Card(
    purpose="Extracts named fields from a short text as JSON: Extract name, date, amount as JSON: <your text>",
    limits="It can't chat, answer questions or follow other instructions, and knows only the fields it was trained on.",
    examples=(
        "Extract name, date, amount as JSON: Hi, this is Ana Kovacs. I paid 42,50 EUR on 3 March 2024 and still have "
        "no receipt.",
        "Extract order_id, product, quantity, city as JSON: ORD-48213: 3 x wireless keyboard, ship to Lyon, customer "
        "Piet Jansen",
        "Extract level, service, status, duration as JSON: 2024-05-11 09:14:02 ERROR billing-worker: POST "
        "/api/v1/invoices -> 503 in 1204 ms",
        "Extract name, doctor, date, time as JSON: Reminder for Lena Berg: your appointment with Dr. Novak is on 12 "
        "June at 14:30, room B12.",
        "Extract flight, origin, destination, seat as JSON: Boarding pass: Marta Silva, flight LH 402 from Porto to "
        "Helsinki, seat 14C.",
        "Extract street, postcode, city, phone as JSON: Please send it to Lena Berg, Elm Street 5, 10115 Berlin, phone "
        "030 1234567.",
    ),
    example_names=("payment", "order", "log line", "appointment", "boarding pass", "address"),
    fields=KINDS,
    single_turn=True,
    prompt_forms=(EXTRACTION_FORM,),
    max_prompt_tokens=MAX_PROMPT_TOKENS,
    recipe="extract",
)

BUNDLED = Card(
    purpose="The bundled model (11 M parameters) extracts named fields from a short text as JSON, rewrites dates, "
    "times, amounts, phone numbers and quantities in the format you ask for, and tries to fix typos.",
    limits="It can't chat, answer questions, translate or summarize; prompts of other kinds get nonsense. One "
    "text is one record: of several items it returns one. Overall it introduces more typos than it fixes.",
    examples=(
        *EXTRACTION.examples[:4],
        "Write the date as YYYY-MM-DD: Sunday, 3rd of March 2024",
        "Write the amount as 0.00 CUR: €1.234,50",
        "Write the time as HH:MM: 9:05 pm",
        "Write the weight in kg: 850 g",
        "Fix the typos: We wil deliver teh order to your adress on Monday.",
    ),
    example_names=(*EXTRACTION.example_names[:4], "date", "amount", "time", "weight", "typos"),
    fields=KINDS,
    single_turn=True,
    prompt_forms=(EXTRACTION_FORM, *NORMALIZATION_FORMS, REPAIR_FORM),
    max_prompt_tokens=MAX_PROMPT_TOKENS,
    recipe="bundled",
    mode="auto",
)


def wide_forms() -> tuple[str, ...]:
    """Returns the forms of all requests for fields that are trained, as the card has them."""
    table, others = read_table("requests"), read_table("requests_other")
    objects = [*table["object"], *table["after"], *(line for lines in others.values() for line in lines)]
    lines = [
        *(line.replace("{fields}", "{items}") for line in table["array"]),
        *(line.replace("{fields}", "{names}") for line in objects),
        *table["schema"],
    ]
    # What begins with its list is tried last: the others say more clearly where theirs begins.
    forms = dict.fromkeys(line.replace("\\n", "\n") for line in lines)
    return tuple(sorted(forms, key=lambda form: form.startswith("{names}")))


WIDE = Card(
    purpose="The bundled model (11 M parameters) extracts the fields you name from a text as JSON, and rewrites "
    "dates, times, amounts, phone numbers and quantities in the format you ask for.",
    limits="It can't chat, answer questions, translate or summarize; it says so when asked to. Of a text with several "
    "records it returns one, unless you ask for a JSON array.",
    examples=(
        *EXTRACTION.examples[:4],
        "Extract customer, due date and total_amount from this mail as JSON:\n\nDear Ms Berg, invoice 2024-117 over "
        "1.250,00 EUR is open. Please pay by 15 June 2024. Kind regards, Nordwind GmbH",
        "Extract name, city as a JSON array:\n- Anna Berg lives in Rome\n- Bob Stone lives in Paris",
        "Write the date as YYYY-MM-DD: Sunday, 3rd of March 2024",
        "Write the amount as 0.00 CUR: €1.234,50",
        "Write the time as HH:MM: 9:05 pm",
        "Write the weight in kg: 850 g",
    ),
    example_names=(*EXTRACTION.example_names[:4], "mail", "list", "date", "amount", "time", "weight"),
    fields=KINDS,
    prompt_forms=(*NORMALIZATION_FORMS, *wide_forms()),
    open_wording=True,
    max_prompt_tokens=640,  # no training example is longer
    refusal=REFUSAL,
    recipe="wide",
    mode="auto",
    object_form=EXTRACTION_FORM,
    window_words=90,
)
"""The card of the bundled model."""
