"""The metrics of the published tables, written from their formulas; each module names its source."""
