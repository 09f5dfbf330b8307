"""One file per model: its tensors and its metadata."""
