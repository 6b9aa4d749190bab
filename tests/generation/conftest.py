import pytest
import torch


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    """A tiny model's products are over before a second thread has woken up."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
