"""Usage queries: from what users ask to what a backend sums, and back."""
