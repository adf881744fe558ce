"""Some mutated files of every format are read or refused, as in `python -m tests.faults.fuzz`, and so are the files that once were neither."""
from __future__ import annotations

import pytest

from tests.faults import fuzz

FILES = 6  # of each format; thousands by hand


@pytest.fixture(scope="module", autouse=True)
def imported(): fuzz.warm()


@pytest.mark.parametrize("name", fuzz.FORMATS)
def test_mutated_files(name):
    tally = fuzz.fuzz(name, list(range(FILES)))
    assert not tally.found and sum(tally.counts.values()) == FILES, tally.found
