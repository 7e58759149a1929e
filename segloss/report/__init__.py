"""Scores as words, tables, pictures and pages. It is handed values and pictures and never runs a network."""
