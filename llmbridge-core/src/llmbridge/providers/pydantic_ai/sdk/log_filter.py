"""What SDKs log: at DEBUG some of them log a whole request, prompt included."""

from __future__ import annotations

import logging

#: Loggers of the SDKs' clients.
_CLIENTS = ("openai._base_client", "anthropic._base_client", "groq._base_client")


def keep_requests_out() -> None:
    """Keep from every log what these clients log at DEBUG. Idempotent."""
    for name in _CLIENTS:
        logging.getLogger(name).addFilter(_is_worth_more)


def _is_worth_more(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG
