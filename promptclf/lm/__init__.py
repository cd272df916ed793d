"""The language model: loaded, quantised, tuned by adapters, and asked for scores."""
