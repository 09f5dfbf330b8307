"""Measuring what a storage type costs."""
