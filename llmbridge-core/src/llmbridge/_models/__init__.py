"""Models that the database knows, and the bundled catalog."""
