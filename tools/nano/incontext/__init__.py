"""A variant of nano that learns in context: a new meaning of nonsense words from a few examples in the prompt."""
