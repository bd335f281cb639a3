# Existing code continues to work unchanged
from pgdbm import AsyncDatabaseManager
from llmbridge import LLMBridge

db_manager = AsyncDatabaseManager(config)
service = LLMBridge(db_manager=db_manager)  # Still works!
