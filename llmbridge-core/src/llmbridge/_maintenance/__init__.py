"""Maintenance of stored calls: purge, erase, reprice and copy."""
