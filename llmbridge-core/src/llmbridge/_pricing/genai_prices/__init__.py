"""Prices from the data of genai-prices. The only package that imports it."""
