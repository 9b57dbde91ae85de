"""Settings that all tests share."""

import pytest
import torch
from hypothesis import HealthCheck, settings

# The same examples in every run: a failure seen once is seen again. No deadline: a busy machine
# is no failure.
settings.register_profile(
    "laws",
    derandomize=True,
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("laws")


@pytest.fixture
def n_threads(request):
    """Let PyTorch use the threads that a test names."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def pytest_addoption(parser):
    parser.addoption("--potential", help="a trained .eqpot on which the laws are checked too")
    parser.addoption("--datasets", help="a folder of sound data sets that the audit must accept")
