"""The weights that a run starts from."""

import torch

from redraft.bundled.data.extraction.tokenizer import train_tokenizer
from redraft.training.initialization import carry_embedding

TEXTS = ["the order of Ana Kovacs", "the orders of Lena Berg"] * 20


def test_an_embedding_is_carried_over_by_what_the_tokens_write():
    old, new = train_tokenizer(TEXTS, 300), train_tokenizer([*TEXTS, *["der Auftrag von Ana"] * 40], 320)
    rows = torch.randn(old.get_vocab_size(), 8)
    carried = carry_embedding(rows, old, new)
    assert carried.shape == (new.get_vocab_size(), 8)
    known = old.get_vocab()
    both = set(known) & set(new.get_vocab())
    assert {"<pad>", "<turn|>", "Ana"} <= both
    for text in both:
        assert torch.equal(carried[new.token_to_id(text)], rows[known[text]])
    unknown = set(new.get_vocab()) - both
    assert "Auftrag" in unknown
    pieces = old.encode("Auftrag", add_special_tokens=False).ids
    torch.testing.assert_close(carried[new.token_to_id("Auftrag")], rows[pieces].mean(0))
