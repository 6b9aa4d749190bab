from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    # For tensors this small a second thread gains nothing, and where the machine is busy waiting for it costs a
    # hundredfold. It also makes sums come out in one order.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
