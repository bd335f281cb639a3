"""Calls to models: attempts, retries, streaming and outcomes."""
