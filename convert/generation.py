"""Defaults of generation in a checkpoint: generation_config.json, else config.json, else the model's own."""

from collections.abc import Mapping

from kosmos_edge.errors import ModelCorrupt

from .gguf import Entry
from .sources.checkpoint import Checkpoint
from .sources.files import brief


def generation_entries(
    checkpoint: Checkpoint,
    architecture: str,
    *,
    max_new_tokens: int,
    no_repeat_ngram_size: int,
    ids: Mapping[str, int],
    repetition_penalty: float = 1.0,
) -> list[Entry]:
    """<architecture>.generation.*: the numbers are the model's own. ids: special tokens that generation_config.json may
    name as well, "bos_token_id" and its kin. repetition_penalty: the authors' own, which no file says."""
    text = checkpoint.config.get("text_config")
    sources = (checkpoint.generation, text if isinstance(text, dict) else {})
    entries: list[Entry] = []
    for key, default, largest in (
        ("max_new_tokens", max_new_tokens, 1 << 20),
        ("no_repeat_ngram_size", no_repeat_ngram_size, 1 << 10),
    ):
        value = next((source[key] for source in sources if source.get(key) is not None), default)
        if type(value) is not int or not 0 <= value <= largest or (key == "max_new_tokens" and value == 0):
            raise ModelCorrupt(
                f"generation_config.json: {key} is {brief(value)}, expected an integer of at most {largest}"
            )
        entries.append((f"{architecture}.generation.{key}", "u32", value))
    if repetition_penalty != 1:
        entries.append((f"{architecture}.generation.repetition_penalty", "f32", repetition_penalty))
    for key, expected in ids.items():
        value = checkpoint.generation.get(key, expected)
        if value != expected:
            raise ModelCorrupt(f"generation_config.json: {key} is {brief(value)}, expected {expected}")
    return entries
