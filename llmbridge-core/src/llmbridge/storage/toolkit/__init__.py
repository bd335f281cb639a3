"""Optional parts for SQL backends. They may change in minor releases.

time_cells: time cells of rollups, and which cells cover a query.
rollups: the columns of rollups, which rows a query reads, and the result from their sums.
lifecycle: connect and disconnect of a backend, once for all callers.
maintenance: long work as many short transactions.
sql_templates: SQL with placeholders for the names of tables.
shielded: tasks that the caller's cancellation does not interrupt.
`make_private_file` and `exists`: files that only their owner may read.
"""

from __future__ import annotations

from ..._shared.files import exists, make_private_file

__all__ = ["exists", "make_private_file"]
