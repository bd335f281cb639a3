"""Access to one storage backend: start, guard, translate errors."""
