"""One job a tab."""
