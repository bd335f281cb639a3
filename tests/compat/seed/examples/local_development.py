from llmbridge import LLMBridge

# File-based SQLite (default for local development)
service = LLMBridge(
    db_connection_string="~/llmbridge.db",  # or "sqlite:///path/to/db.sqlite"
    enable_db_logging=True
)

# In-memory database (great for testing)
service = LLMBridge(
    db_connection_string=":memory:",
    enable_db_logging=True
)

# No database (API calls only, no logging)
service = LLMBridge(enable_db_logging=False)
