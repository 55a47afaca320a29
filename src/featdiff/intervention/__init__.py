"""Edits of features, their controls, and what they do to answers."""
