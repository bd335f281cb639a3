"""Helpers that import nothing else of llmbridge."""
