# tests/test_sqlite_integration.py
import pytest
from llmbridge import LLMBridge
from llmbridge.schemas import LLMRequest, Message

@pytest.mark.asyncio
async def test_sqlite_full_flow():
    """Test complete flow with SQLite backend."""
    
    # Initialize with in-memory SQLite
    service = LLMBridge(
        db_connection_string=":memory:",
        enable_db_logging=True
    )
    
    await service._ensure_db_initialized()
    
    # Add a model
    from llmbridge.schemas import LLMModel
    model = LLMModel(
        provider="openai",
        model_name="gpt-4o-mini",
        display_name="GPT-4 Mini",
        max_context=128000,
        dollars_per_million_tokens_input=0.15,
        dollars_per_million_tokens_output=0.60
    )
    await service.db.upsert_model(model)
    
    # Verify model was added
    retrieved = await service.db.get_model("openai", "gpt-4o-mini")
    assert retrieved.model_name == "gpt-4o-mini"
    
    # Make an API call (mocked)
    request = LLMRequest(
        messages=[Message(role="user", content="Test")],
        model="gpt-4o-mini"
    )
    
    # Record the call
    await service.db.record_api_call(
        origin="test",
        id_at_origin="user1",
        provider="openai",
        model_name="gpt-4o-mini",
        prompt_tokens=10,
        completion_tokens=20,
        estimated_cost=0.001,
        response_time_ms=100
    )
    
    # Get usage stats
    stats = await service.db.get_usage_stats("test", "user1", days=1)
    assert stats["total_calls"] == 1
    assert stats["total_tokens"] == 30
    
    await service.close()
