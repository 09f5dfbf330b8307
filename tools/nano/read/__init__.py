"""nano-read: a KOSMOS-2.5 that reads rendered text, and the recipe that trains it."""
