"""Pairs as llama.cpp has them: a language model in one GGUF file, its vision encoder ("mmproj") in another."""

from pathlib import Path

from kosmos_edge.errors import KosmosIOError, ModelNotFound


def pair_in(folder: Path) -> tuple[Path, Path] | None:
    """(language model, vision encoder): the two GGUF files of a folder, of which one has "mmproj" in its name.

    None where no file has. ModelNotFound where there is not one of each; KosmosIOError if the folder cannot be read.
    """
    try:
        files = sorted(file for file in folder.iterdir() if file.suffix.lower() == ".gguf" and file.is_file())
    except OSError as error:
        raise KosmosIOError(f"cannot read {folder}: {error.strerror or error}") from error
    vision = [file for file in files if "mmproj" in file.name.lower()]
    text = [file for file in files if file not in vision]
    if not vision:
        return None
    if len(vision) > 1 or len(text) != 1:
        raise ModelNotFound(
            f"{folder} holds {', '.join(file.name for file in files[:10])}; expected one language model and one vision "
            "encoder, whose name has mmproj in it; or name one file as the model and the other as its mmproj"
        )
    return text[0], vision[0]
