"""A model in a worker process."""
