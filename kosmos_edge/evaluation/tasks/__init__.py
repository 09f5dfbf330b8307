"""The tasks with prompts of their own: one module for each kind of data."""
