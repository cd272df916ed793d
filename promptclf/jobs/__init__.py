"""Long work in processes of its own, with its state in SQLite."""
