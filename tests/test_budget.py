"""The counts of docs/budget.md are those of the model, or a test says so."""

import re
import sys

import pytest

from test_benchmarks import FOLDER


@pytest.fixture(scope="module")
def budget():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(FOLDER), *sys.path])
        import budget

        yield budget


@pytest.fixture(scope="module")
def cases(budget):
    return [budget.case(preset, system) for preset in budget.PRESETS for system in budget.NAMES]


def test_the_page_holds_the_counts_of_today(budget, cases):
    budget.check(budget.PAGE.read_text(encoding="utf-8"), cases)


def test_a_stale_page_is_told(budget, cases):
    page = budget.PAGE.read_text(encoding="utf-8")
    stale = re.sub(r"(\| sphere products \| )(\d+)", r"\g<1>1", page, count=1)
    assert stale != page
    with pytest.raises(ValueError, match="the counts must be"):
        budget.check(stale, cases)


def test_a_block_is_replaced_and_nothing_else(budget):
    page = budget.with_block(budget.PAGE.read_text(encoding="utf-8"), "times", "none")
    assert budget.block(page, "times") == "none"
    assert budget.block(page, "counts") and page.count("<!--") == 4
    with pytest.raises(ValueError, match="end of times"):
        budget.block(page.replace("<!-- end of times -->", ""), "times")
