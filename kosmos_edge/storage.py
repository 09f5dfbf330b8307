"""The types in which a model's weights are stored, by the names that tags, file names and --type spell."""

# In the order in which a tag without a type takes what is here; the first is the default of a conversion.
TYPES = ("q4_k_m", "q5_k", "q6_k", "q8_0", "q4_0", "iq4_xs", "q3_k_m", "q2_k", "f16", "bf16", "f32")


def label(type: str) -> str:
    """The type as file names spell it."""
    return "Q5_K_M" if type == "q5_k" else type.upper()
