"""The run of a study: its plan, its folder, and what lies in it."""
