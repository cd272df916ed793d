"""Answers, reports and long work as HTML."""
