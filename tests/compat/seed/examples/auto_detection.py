import os
from llmbridge import LLMBridge

# Automatically detect backend from DATABASE_URL
service = LLMBridge(
    db_connection_string=os.getenv("DATABASE_URL"),
    enable_db_logging=True
)
# Will use:
# - PostgreSQL if URL starts with postgresql://
# - SQLite if URL starts with sqlite:// or is a file path
# - No database if DATABASE_URL is not set
