"""The comparison: figures, intervals, tests, reports."""
