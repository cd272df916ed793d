"""What is classified: reading, cleaning, splitting, and what is wrong with it."""
