from llmbridge import LLMBridge

# PostgreSQL with full features
service = LLMBridge(
    db_connection_string="postgresql://user:pass@localhost/myapp",
    enable_db_logging=True
)

# With monitoring
service = LLMBridge(
    db_connection_string="postgresql://user:pass@localhost/myapp",
    enable_db_logging=True,
    enable_monitoring=True  # PostgreSQL only
)
