"""Call records: their fields, their validation and their canonical form."""
