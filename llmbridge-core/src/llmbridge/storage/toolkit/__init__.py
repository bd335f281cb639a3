"""Optional parts for SQL backends. They may change in minor releases.

time_cells: time cells of rollups, and which cells cover a query.
sql_templates: SQL with placeholders for the names of tables.
shielded: tasks that the caller's cancellation does not interrupt.
`make_private_file` and `exists`: files that only their owner may read.
"""

from __future__ import annotations

from ..._shared.files import exists, make_private_file

__all__ = ["exists", "make_private_file"]
