"""What fits and predicts: one class a mode, and what they share."""
