"""The command line, the registry of stages, and what runs them."""
