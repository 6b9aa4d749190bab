"""Makes mails to a support desk with their right routing: mails.csv to train on, new_mails.csv to test on.

Both are made of the same parts; the wordings of new_mails.csv are in part ones that mails.csv never has.
"""

import csv
import random
import sys
from pathlib import Path

# Wordings of each case, by the team that it goes to. Of each list the last two are for the new mails alone.
CASES = {
    "billing": [
        "I was charged twice for order {order}. Please refund one of the two payments.",
        "The invoice for {order} shows the wrong VAT number. Can you send a corrected one?",
        "My card was debited for {order} although I cancelled it.",
        "Why does the bill for {order} include a fee of {amount} EUR?",
        "I still wait for the {amount} EUR that you owe me for {order}.",
        "You took {amount} EUR too much for {order}, kindly pay it back.",
    ],
    "delivery": [
        "My parcel {order} has not arrived yet. Where is it?",
        "The tracking of {order} has not changed for {days} days.",
        "Could {order} go to my neighbour instead? I am away for {days} days.",
        "The courier says {order} was handed over, but nobody here has it.",
        "It has been {days} days and there is no trace of {order}.",
        "Please send {order} to another address, I have moved.",
    ],
    "returns": [
        "I want to send {order} back, it does not fit.",
        "How do I return {order}? The label is missing.",
        "The {product} from {order} arrived broken. I would like a replacement.",
        "Please exchange the {product} in {order} for a larger one.",
        "{order} contained the wrong {product}, what do I do with it?",
        "The {product} of {order} stopped working after {days} days, I want a new one.",
    ],
    "account": [
        "I cannot log in since the update, the reset mail never comes.",
        "Please delete my account and everything you know about me.",
        "How do I change the mail address of my account?",
        "Someone else seems to use my account, I see orders that are not mine.",
        "My password is refused although I am sure that it is right.",
        "Please merge my two accounts into one.",
    ],
}
KNOWN, UNKNOWN, ANY = slice(None, -2), slice(-2, None), slice(None)
"""Which of a case's wordings a mail may have: those of the rows, the others, all."""
URGENT = ["This is urgent!", "I need an answer today.", "Please hurry, it is for a birthday tomorrow."]
CALM = ["There is no hurry.", "Whenever you find the time.", "Thank you for your patience.", ""]
GREETINGS = ["Hello,", "Hi there,", "Dear support team,", "Good morning,", ""]
CLOSINGS = ["Best regards, {name}", "Thanks, {name}", "{name}", "Kind regards\n{name}"]
NAMES = ["Ana Kovacs", "Jonas Weber", "Priya Nair", "Tom Okafor", "Lea Martin", "Yuki Mori", "Piet Jansen"]
PRODUCTS = ["kettle", "headset", "desk lamp", "rain jacket", "coffee grinder", "backpack"]


def make_mail(rng: random.Random, wordings: slice) -> dict[str, str]:
    team = rng.choice(list(CASES))
    order = f"{rng.choice('ABCDEFGH')}{rng.randrange(1000, 10000)}"
    is_urgent = rng.random() < 0.4
    text = rng.choice(CASES[team][wordings])
    body = text.format(
        order=order, amount=rng.randrange(5, 90), days=rng.randrange(2, 15), product=rng.choice(PRODUCTS)
    )
    parts = [rng.choice(GREETINGS), body, rng.choice(URGENT if is_urgent else CALM)]
    parts.append(rng.choice(CLOSINGS).format(name=rng.choice(NAMES)))
    return {
        "mail": " ".join(filter(None, parts)),
        "team": team,
        "urgency": "high" if is_urgent else "normal",
        "order": order if "{order}" in text else "none",
    }


def write(path: Path, count: int, seed: int, wordings: slice, without: frozenset[str] = frozenset()) -> frozenset[str]:
    """Writes so many mails, all different, and returns them; the first ones are the same for any count."""
    rng = random.Random(seed)
    rows: dict[str, dict[str, str]] = {}
    while len(rows) < count:
        row = make_mail(rng, wordings)
        if row["mail"] not in without:
            rows[row["mail"]] = row
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["mail", "team", "urgency", "order"])
        writer.writeheader()
        writer.writerows(rows.values())
    return frozenset(rows)


def make_tables(folder: Path) -> None:
    """Writes both tables into `folder`; no mail is in both."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = write(folder / "mails.csv", 200, 1, KNOWN)
    write(folder / "new_mails.csv", 100, 2, ANY, without=rows)


if __name__ == "__main__":
    make_tables(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
