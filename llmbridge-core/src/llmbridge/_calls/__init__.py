"""One call to a model: attempts, retries, streaming and the outcome."""
