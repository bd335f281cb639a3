"""Optional parts for SQL backends. They may change in minor releases.

time_cells: the cells of time that rollups are kept by, and how a question is covered by them.
sql_templates: SQL with placeholders for table names.
lifecycle: connect and disconnect of a backend, which are the same whatever it connects to.
maintenance: long work as many short transactions.
rollups: the columns of rollups, what a question reads of them, and how their sums become an answer.
shielded: work that a caller's cancellation must not cut in the middle.
`make_private_file` and `exists`: files that only their owner may read.
"""

from __future__ import annotations

from ..._shared.files import exists, make_private_file

__all__ = ["exists", "make_private_file"]
