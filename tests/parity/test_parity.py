"""After any sequence of operations, every backend gives the results of the reference backend."""

from __future__ import annotations

import math

import pytest

from .contest import Contest, play
from .rounds import PLAYED
from .stores import Arena


@pytest.fixture(autouse=True)
def same_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks for other price data in the midst of a sequence: of callers who come together each waits for that,
    and which of them is first is random."""
    monkeypatch.setattr("llmbridge._pricing.genai_prices.editions.MAX_AGE", math.inf)


@pytest.fixture(autouse=True)
def short_shrinking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failing sequence is shown before the test run takes it for one that hangs."""
    monkeypatch.setattr("hypothesis.internal.conjecture.engine.MAX_SHRINKING_SECONDS", 60)


@pytest.mark.parametrize(("machine", "sequences", "seed"), PLAYED)
def test_backends_agree_on_every_sequence_of_operations(
    arena: Arena, machine: type[Contest], sequences: int, seed: int
) -> None:
    play(machine, arena, sequences, seed)
