"""Usage queries: arguments, periods, statistics and cursors."""
