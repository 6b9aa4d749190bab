"""The plain attention in each dtype, where blocks hold rows that belong to nobody."""

import pytest
import torch
from torch import Tensor

from redraft.model.attention import SegmentedAttention
from redraft.model.batch import Pass, Segment
from redraft.model.cache import KVCache
from tests.fakes.models import tiny_config

HELD, NEW = 69, 59


def attended(dtype: torch.dtype) -> Tensor:
    config = tiny_config(max_context=400)
    shape, generator = config.attention_shape(0), torch.Generator().manual_seed(0)
    cache = KVCache(config)
    for position, length in ((0, HELD), (HELD, NEW)):
        q, k, v = (
            torch.randn(length, heads, shape.head_dim, generator=generator).to(dtype)
            for heads in (config.num_heads, shape.num_kv_heads, shape.num_kv_heads)
        )
        context = SegmentedAttention(config, [Segment(0, 0, length, position, Pass.ENCODER)], [cache])
        found = context.attend(0, q, k, v)
        (cache,) = context.extended_caches()
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_nobody_leave_their_neighbours_alone(dtype: torch.dtype) -> None:
    """The last block's first five rows see nothing at all."""
    torch.testing.assert_close(attended(dtype).float(), attended(torch.float32), rtol=0, atol=0.05)
