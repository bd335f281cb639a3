"""State machine that stores and lists models and own prices: every backend must give the same results."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from llmbridge.storage import LLMModel, ModelPrice, StorageBackend

from . import values
from .contest import Contest, opened
from .stores import Arena

Fields = dict[str, Any]

_names = st.sampled_from(values.NAMES[:3]) | values.names


class ModelsParity(Contest):
    def __init__(self, arena: Arena) -> None:
        super().__init__(arena)
        self.parties = arena.empty()
        self.agree(opened, lambda status: (status.pending, status.writable))

    @rule(batch=st.lists(values.models(), max_size=4))
    def upsert_models(self, batch: list[Fields]) -> None:
        self.agree(lambda backend: backend.upsert_models([LLMModel(**fields) for fields in batch]))

    @rule(keys=st.lists(st.tuples(_names, _names), max_size=3), at=values.times)
    def retire_models(self, keys: list[tuple[str, str]], at: datetime) -> None:
        self.agree(lambda backend: backend.retire_models(keys, at))

    @rule(provider=values.or_none(_names), model_name=values.or_none(_names), active_only=st.booleans())
    def list_models(self, **wanted: Any) -> None:
        self.agree(lambda backend: backend.list_models(**wanted))

    @rule(batch=st.lists(values.prices(), max_size=4))
    def set_prices(self, batch: list[Fields]) -> None:
        self.agree(lambda backend: backend.set_prices([ModelPrice(**fields) for fields in batch]))

    @rule(provider=values.or_none(_names), model_name=values.or_none(_names))
    def list_prices(self, **wanted: Any) -> None:
        self.agree(lambda backend: backend.list_prices(**wanted))

    @rule()
    def reopen(self) -> None:
        self.agree(lambda backend: backend.disconnect())
        self.agree(lambda backend: backend.list_models())
        self.agree(opened, lambda status: (status.pending, status.writable))

    def teardown(self) -> None:
        try:
            if self.agreed:
                self.agree(_everything)
        finally:
            self.arena.of_all(self.parties, lambda backend: backend.disconnect())


async def _everything(backend: StorageBackend) -> tuple[Any, ...]:
    return await backend.list_models(active_only=False), await backend.list_prices()
