"""Every backend gives the answers of the reference backend, whatever is done to it."""

from __future__ import annotations

import math
import os

import pytest

from .books_machine import BooksParity
from .calls_machine import CallsParity
from .contest import Contest, play
from .models_machine import ModelsParity
from .stores import Arena
from .upkeep_machine import UpkeepParity

#: The default run has two rounds, and so 200 sequences of operations on calls.
ROUNDS = range(int(os.environ.get("LLMBRIDGE_TEST_PARITY_ROUNDS", "2")))

#: The default run plays the same sequences every time; another seed plays others.
SEED = int(os.environ.get("LLMBRIDGE_TEST_PARITY_SEED", "0"))


@pytest.fixture(autouse=True)
def same_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks for other price data in the midst of a sequence: of callers who come together each waits for that,
    and who is first then is a matter of chance."""
    monkeypatch.setattr("llmbridge._pricing.genai_prices.editions.MAX_AGE", math.inf)


@pytest.fixture(autouse=True)
def short_shrinking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failing sequence is shown before the test run takes it for one that hangs."""
    monkeypatch.setattr("hypothesis.internal.conjecture.engine.MAX_SHRINKING_SECONDS", 60)


@pytest.mark.parametrize(
    ("machine", "sequences"), [(CallsParity, 100), (UpkeepParity, 50), (ModelsParity, 50), (BooksParity, 50)]
)
@pytest.mark.parametrize("number", ROUNDS)
def test_backends_agree_on_every_sequence_of_operations(
    arena: Arena, machine: type[Contest], sequences: int, number: int
) -> None:
    play(machine, arena, sequences, SEED + number)
