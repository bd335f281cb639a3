"""How often faults are injected, and the random numbers for them."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator

#: Whether every fault is injected as often as `nox -s durability` does, and not once.
FULL = os.environ.get("LLMBRIDGE_TEST_DURABILITY") == "1"
#: Set by `nox -s chaos`: the share of the great numbers of rounds that is played, 1 being all.
CHAOS = float(os.environ.get("LLMBRIDGE_TEST_CHAOS", "0"))
SEED = int(os.environ.get("LLMBRIDGE_TEST_FAULTS_SEED", "0"))


def amount(once: float, usual: float, chaos: float) -> float:
    """A number of rounds, or of seconds: that of the default run, of `nox -s durability`, or of `nox -s chaos`."""
    if CHAOS:
        return max(usual, chaos * CHAOS)
    return usual if FULL else once


def rounds(usual: int, chaos: int) -> Iterator[random.Random]:
    """The chances of each round. What is printed is shown when a test fails, and plays its last round again."""
    for number in range(int(amount(1, usual, chaos))):
        sys.stdout.write(f"round {number} of LLMBRIDGE_TEST_FAULTS_SEED={SEED}\n")
        yield random.Random(f"{SEED}/{number}")
