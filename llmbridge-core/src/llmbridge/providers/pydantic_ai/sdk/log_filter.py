"""Log filter for SDKs that log whole requests, prompts included, at DEBUG."""

from __future__ import annotations

import logging

#: Loggers of the SDKs' clients.
_CLIENTS = ("openai._base_client", "anthropic._base_client", "groq._base_client")


def install_log_filter() -> None:
    """Drop what these clients log at DEBUG. Idempotent."""
    for name in _CLIENTS:
        logging.getLogger(name).addFilter(_is_above_debug)


def _is_above_debug(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG
