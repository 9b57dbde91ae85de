"""Settings that all tests share."""

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


def pytest_addoption(parser):
    parser.addoption("--potential", help="a trained .eqpot on which the laws are checked too")
    parser.addoption("--datasets", help="a folder of sound data sets that the audit must accept")
