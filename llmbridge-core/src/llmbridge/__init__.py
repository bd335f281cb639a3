"""Library that calls any LLM and records every call with its exact cost in the database that you already run."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._recording.metrics import CloseReport as CloseReport
    from .db import LLMDatabase as LLMDatabase
    from .errors import LLMBridgeError as LLMBridgeError
    from .file_utils import analyze_image as analyze_image
    from .file_utils import compare_images as compare_images
    from .file_utils import create_base64_image_content as create_base64_image_content
    from .file_utils import create_data_url as create_data_url
    from .file_utils import create_image_content as create_image_content
    from .file_utils import create_multi_image_content as create_multi_image_content
    from .file_utils import encode_file_to_base64 as encode_file_to_base64
    from .file_utils import extract_text_from_image as extract_text_from_image
    from .file_utils import get_file_mime_type as get_file_mime_type
    from .file_utils import validate_image_file as validate_image_file
    from .providers.base import BaseLLMProvider as BaseLLMProvider
    from .schemas import CallRecord as CallRecord
    from .schemas import LLMChunk as LLMChunk
    from .schemas import LLMModel as LLMModel
    from .schemas import LLMRequest as LLMRequest
    from .schemas import LLMResponse as LLMResponse
    from .schemas import Message as Message
    from .schemas import UsageStats as UsageStats
    from .service import LLMBridge as LLMBridge
    from .storage.types import ModelPrice as ModelPrice

_MODULES = {
    "BaseLLMProvider": "providers.base",
    "CallRecord": "schemas",
    "CloseReport": "_recording.metrics",
    "LLMBridge": "service",
    "LLMBridgeError": "errors",
    "LLMChunk": "schemas",
    "LLMDatabase": "db",
    "LLMModel": "schemas",
    "LLMRequest": "schemas",
    "LLMResponse": "schemas",
    "Message": "schemas",
    "ModelPrice": "storage.types",
    "UsageStats": "schemas",
    "analyze_image": "file_utils",
    "compare_images": "file_utils",
    "create_base64_image_content": "file_utils",
    "create_data_url": "file_utils",
    "create_image_content": "file_utils",
    "create_multi_image_content": "file_utils",
    "encode_file_to_base64": "file_utils",
    "extract_text_from_image": "file_utils",
    "get_file_mime_type": "file_utils",
    "validate_image_file": "file_utils",
}

__all__ = [
    "BaseLLMProvider",
    "CallRecord",
    "CloseReport",
    "LLMBridge",
    "LLMBridgeError",
    "LLMChunk",
    "LLMDatabase",
    "LLMModel",
    "LLMRequest",
    "LLMResponse",
    "Message",
    "ModelPrice",
    "UsageStats",
    "analyze_image",
    "compare_images",
    "create_base64_image_content",
    "create_data_url",
    "create_image_content",
    "create_multi_image_content",
    "encode_file_to_base64",
    "extract_text_from_image",
    "get_file_mime_type",
    "validate_image_file",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("llmbridge-core")
    if name not in _MODULES:
        raise AttributeError(f"module 'llmbridge' has no attribute {name!r}")
    found = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
