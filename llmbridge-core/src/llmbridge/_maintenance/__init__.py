"""Long-running operations on stored calls: purge, erase, reprice, copy, check of the totals."""
