"""The write path: from a call's fields to committed rows, with the spool as fallback."""
