"""Base class of the state machines: it runs each operation on every backend and compares the results."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from llmbridge.storage import SchemaStatus, StorageBackend

from .sameness import Raised, difference, outcome
from .stores import Arena


class Contest(RuleBasedStateMachine):
    """Parties that must answer alike. The first is the oracle."""

    def __init__(self, arena: Arena) -> None:
        super().__init__()
        self.arena = arena
        self.parties: dict[str, Any] = {}
        self.agreed = True

    def agree(self, ask: Callable[[Any], Awaitable[Any]], heed: Callable[[Any], Any] = lambda answer: answer) -> Any:
        """Ask all the same; fail unless what is heeded of their answers, errors included, is the same."""
        self.agreed = False
        answers = self.arena.of_all(self.parties, lambda party: outcome(ask(party)))
        (oracle, expected), *others = answers.items()
        if not isinstance(expected, Raised):
            expected = heed(expected)
        for name, got in others:
            found = difference(got if isinstance(got, Raised) else heed(got), expected)
            if found is not None:
                self.arena.narrow_to(oracle, name)
            assert found is None, f"{name} and {oracle} disagree: {found}"
        self.agreed = True
        return expected


async def opened(backend: StorageBackend) -> SchemaStatus:
    """What the schema is, once the backend is ready to be used."""
    await backend.connect()
    await backend.apply_migrations()
    return await backend.schema_status()


def play(machine: type[Contest], arena: Arena, sequences: int, number: int = 0, **changes: Any) -> None:
    """Play so many sequences of up to 12 operations, the same ones for the same `number`; fail with the shortest on
    which the parties disagree."""
    usual: dict[str, Any] = {
        "stateful_step_count": 12,
        "deadline": None,
        "phases": (Phase.reuse, Phase.generate, Phase.shrink),
        "report_multiple_bugs": False,
        "suppress_health_check": list(HealthCheck),
    }
    run_state_machine_as_test(
        seed(number)(partial(machine, arena)), settings=settings(max_examples=sequences, **{**usual, **changes})
    )
