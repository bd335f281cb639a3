# tests/test_backends.py
import pytest
from llmbridge.db_backends import SQLiteBackend, create_backend

@pytest.mark.asyncio
async def test_sqlite_backend():
    """Test SQLite backend operations."""
    backend = SQLiteBackend(":memory:")
    await backend.connect()
    
    # Test table creation
    await backend.execute("""
        CREATE TABLE test (id INTEGER PRIMARY KEY, name TEXT)
    """)
    
    # Test insert and retrieve
    id = await backend.execute_and_return_id(
        "INSERT INTO test (name) VALUES (?)", "test_value"
    )
    assert id == 1
    
    result = await backend.fetch_one("SELECT * FROM test WHERE id = ?", 1)
    assert result["name"] == "test_value"
    
    await backend.disconnect()

@pytest.mark.asyncio
async def test_backend_auto_detection():
    """Test automatic backend selection."""
    
    # PostgreSQL URL
    backend = create_backend("postgresql://localhost/test")
    assert backend.__class__.__name__ == "PostgreSQLBackend"
    
    # SQLite URL
    backend = create_backend("sqlite:///test.db")
    assert backend.__class__.__name__ == "SQLiteBackend"
    
    # File path
    backend = create_backend("/path/to/test.db")
    assert backend.__class__.__name__ == "SQLiteBackend"
    
    # Memory
    backend = create_backend(":memory:")
    assert backend.__class__.__name__ == "SQLiteBackend"
