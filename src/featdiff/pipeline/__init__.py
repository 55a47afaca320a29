"""The verbs: each reads folders of a run, calls the library, and writes one folder."""
