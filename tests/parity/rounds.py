"""The number of sequences of operations for each state machine."""

from __future__ import annotations

import os

from .calls_machine import CallsParity
from .contest import Contest
from .database_machine import DatabaseParity
from .maintenance_machine import MaintenanceParity
from .models_machine import ModelsParity

#: How many sequences one round of each machine has. `nox -s parity` plays two rounds, the same ones every time; another
#: seed plays others.
ROUND: dict[type[Contest], int] = {CallsParity: 100, MaintenanceParity: 50, ModelsParity: 50, DatabaseParity: 50}
ROUNDS = int(os.environ.get("LLMBRIDGE_TEST_PARITY_ROUNDS", "0"))
SEED = int(os.environ.get("LLMBRIDGE_TEST_PARITY_SEED", "0"))

#: The default run plays fewer, twice as many as find each of the defects of `test_broken`: with this seed the last one
#: shows in the 10th sequence of calls and in the 31st of maintenance.
LEAST: dict[type[Contest], int] = {CallsParity: 24, MaintenanceParity: 62, ModelsParity: 16, DatabaseParity: 16}
LEAST_SEED = 2

#: Machine, number of sequences, seed.
PLAYED = [
    *((machine, sequences, SEED + number) for number in range(ROUNDS) for machine, sequences in ROUND.items()),
    *((machine, sequences, LEAST_SEED) for machine, sequences in LEAST.items() if not ROUNDS),
]
