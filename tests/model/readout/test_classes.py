"""The readout by classes against all logits at once, for every precision."""

import pytest
import torch

from redraft.model.precision import Precision
from redraft.model.preparation import prepare
from redraft.model.readout import classes
from redraft.model.readout.classes import read_classes
from redraft.model.readout.query import ReadoutQuery
from redraft.model.readout.streamed import streamed_readout
from tests.fakes.models import tiny_model

VOCAB = 2500
"""Some tiles, the last of them not full."""


@pytest.mark.parametrize("precision", ["plain", "float32", "bf16", "int8"])
@pytest.mark.parametrize("temperature", [0.3, 1.0])
@torch.inference_mode()
def test_classes_are_what_all_logits_say(precision, temperature):
    model = tiny_model(vocab_size=VOCAB)
    if precision != "plain":
        model = prepare(model.to(Precision.named(precision).dtype), precision)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(5, 32, generator=generator).to(model.embed_tokens.weight.dtype) * 3
    of_token = torch.randint(-1, 6, (VOCAB,), generator=generator)
    # One class has one token, which lies in the last tile.
    of_token[of_token == 5] = 0
    of_token[VOCAB - 1] = 5
    read = read_classes(model.head, hidden, temperature, of_token, 6)
    log_probs = (model.head.logits(hidden) / temperature).double().log_softmax(-1)
    tolerance = 1e-4 if precision in ("plain", "float32") else 0.2 / temperature
    for number in range(6):
        ids = (of_token == number).nonzero()[:, 0]
        own = log_probs[:, ids]
        mass = own.logsumexp(-1)
        given = own - mass[:, None]
        torch.testing.assert_close(read.log_mass[:, number], mass, atol=tolerance, rtol=0)
        torch.testing.assert_close(read.entropy[:, number], -(given.exp() * given).sum(-1), atol=tolerance, rtol=0)
        torch.testing.assert_close(read.best_log_prob[:, number], own.amax(-1), atol=tolerance, rtol=0)
        chosen = log_probs.gather(1, read.best_token[:, number, None])[:, 0]
        assert (of_token[read.best_token[:, number]] == number).all()
        torch.testing.assert_close(chosen, own.amax(-1), atol=tolerance, rtol=0)
    # The likeliest token of all is that of the plain readout, to the bit.
    everything = read_classes(model.head, hidden, temperature, torch.zeros(VOCAB, dtype=torch.int64), 1)
    query = ReadoutQuery(temperature, None, soft_embedding=False)
    assert torch.equal(everything.best_token[:, 0], streamed_readout(model.head, hidden, query).argmax)
    assert everything.log_mass.abs().max() < 1e-9


@torch.inference_mode()
def test_a_row_is_read_alone_as_beside_others():
    model = tiny_model(vocab_size=VOCAB)
    hidden = torch.randn(7, 32, generator=torch.Generator().manual_seed(1))
    of_token = torch.arange(VOCAB) % 11
    together, alone = (read_classes(model.head, rows, 0.5, of_token, 11) for rows in (hidden, hidden[3:4]))
    for name in ("log_mass", "entropy", "best_token", "best_log_prob"):
        assert torch.equal(getattr(together, name)[3:4], getattr(alone, name)), name


def test_nothing_of_the_size_of_rows_times_vocabulary_is_held(monkeypatch):
    seen = []
    original = classes.multiply
    monkeypatch.setattr(classes, "multiply", lambda x, w: seen.append(len(w)) or original(x, w))
    model = tiny_model(vocab_size=VOCAB)
    with torch.inference_mode():
        read_classes(model.head, torch.zeros(3, 32), 1.0, torch.zeros(VOCAB, dtype=torch.int64), 1)
    assert max(seen) <= classes.TILE
