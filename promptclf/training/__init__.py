"""How an adapter is trained."""
