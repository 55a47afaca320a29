"""The settings of a study, a file a section."""
