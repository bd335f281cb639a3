"""Prices: rate cards, own prices and the data of genai-prices."""
