"""Model cards: schema, store, verification, publication."""
