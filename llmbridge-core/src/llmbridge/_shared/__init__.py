"""Ground level: helpers that import nothing else of llmbridge."""
