"""Residual streams of a lineup over one token stream."""
