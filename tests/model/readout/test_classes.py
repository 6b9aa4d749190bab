"""The readout by classes against all logits at once, for every precision."""

import pytest
import torch

from redraft.model.precision import Precision
from redraft.model.preparation import prepare
from redraft.model.readout.classes import ClassMap, ClassReadout, RowClasses
from redraft.model.readout.query import AllowedTokens, ReadoutQuery
from redraft.model.readout.streamed import streamed_readout
from tests.fakes.models import tiny_model

VOCAB = 2500
"""Some tiles, the last of them not full."""


def read_classes(head, hidden, temperature, of_token, count) -> ClassReadout:
    asked = RowClasses(0, len(hidden), ClassMap(of_token, count))
    query = ReadoutQuery(temperature, None, soft_embedding=False, classes=(asked,))
    (read,) = streamed_readout(head, hidden, query).classes
    return read


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


@torch.inference_mode()
@pytest.mark.parametrize("has_kernels", [False, True])
def test_rows_beside_them_are_read_as_ever(has_kernels):
    """Rows of two requests that are read by classes, over blocks of rows, beside some that are not."""
    model = tiny_model(vocab_size=VOCAB)
    if has_kernels:
        model = prepare(model, "float32")
    rows, generator = 300, torch.Generator().manual_seed(2)
    hidden, uniforms = torch.randn(rows, 32, generator=generator), torch.rand(rows, generator=generator).double()
    temperature = 0.4 + torch.rand(rows, generator=generator).double()
    maps = [ClassMap(torch.arange(VOCAB) % count - 1, count - 1) for count in (5, 70)]
    asked = RowClasses(3, 140, maps[0]), RowClasses(200, 290, maps[1])
    free = streamed_readout(model.head, hidden, ReadoutQuery(temperature, uniforms))
    held = streamed_readout(model.head, hidden, ReadoutQuery(temperature, uniforms, classes=asked))
    for name in ("sample", "argmax", "entropy", "soft_embedding"):
        assert torch.equal(getattr(free, name), getattr(held, name)), name
    for read, one in zip(held.classes, asked, strict=True):
        rows_of = slice(one.start, one.stop)
        alone = ReadoutQuery(
            temperature[rows_of], uniforms[rows_of], classes=(RowClasses(0, one.stop - one.start, one.classes),)
        )
        (wanted,) = streamed_readout(model.head, hidden[rows_of], alone).classes
        for name in ("log_mass", "entropy", "best_token", "best_log_prob"):
            assert torch.equal(getattr(read, name), getattr(wanted, name)), name


def test_limited_rows_are_not_read_by_classes():
    model = tiny_model()
    size = model.config.vocab_size
    allowed = AllowedTokens(torch.ones(1, size, dtype=torch.bool), torch.zeros(2, dtype=torch.int64))
    asked = RowClasses(0, 2, ClassMap(torch.zeros(size, dtype=torch.int64), 1))
    with pytest.raises(ValueError, match="cannot be read by classes as well"):
        streamed_readout(model.head, torch.zeros(2, 32), ReadoutQuery(1.0, None, allowed=allowed, classes=(asked,)))
