"""One request, from a plan to a Result."""
