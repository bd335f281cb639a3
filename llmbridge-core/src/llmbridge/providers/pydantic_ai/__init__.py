"""Providers that are reached through pydantic-ai. Imports no SDK."""
