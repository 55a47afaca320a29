"""The method as a notebook calls it: values in, a result out; no study file, no run folder.

Each function composes what the stages of a study call, so both give the same numbers.
"""
