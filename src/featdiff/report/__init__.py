"""The result of a study on one page."""
