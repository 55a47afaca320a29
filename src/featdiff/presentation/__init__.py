"""One look for all figures and numbers."""
