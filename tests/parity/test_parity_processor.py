"""Tokenizer and post-processing against transformers: ids of texts, decoded text, phrases and boxes, to_hf()."""

import random

import numpy as np
import pytest
from checkpoints import Checkpoint
from helpers.golden_cases import load_json
from PIL import Image

import kosmos_edge
from kosmos_edge.inference.answer import Reader

SENTENCES = [
    "Question: What is special about this image? Answer:",
    "<grounding><phrase> a snowman next to a fire</phrase>",
    "The year 1984, the 3rd of May: 25% off! (No kidding.) It's Anna's, isn't it?",
    "<grounding><phrase> It</phrase><object><patch_index_0044><patch_index_0863></object> is",
    "An  image   of", "naïve café, Zürich, Ångström", "C++ & Python/NumPy -> e-mail: someone@example.org",
    "</doc></chunk></line><image></image>", "<patch_index_0000><patch_index_1023><patch_index_1024><patch_index_7>",
]  # fmt: skip


def random_texts(checkpoint: Checkpoint, count: int) -> list[str]:
    """Strings of vocabulary pieces and tags in random order."""
    rng = random.Random(9)
    vocabulary = list(checkpoint.hf.tokenizer.get_vocab())
    vocabulary = [p for p in vocabulary if p not in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")]
    tags = ["<phrase>", "</phrase>", "<object>", "</object>", "<grounding>", "<patch_index_0031>", " "]
    texts = []
    for _ in range(count):
        parts = [rng.choice(tags if rng.random() < 0.15 else vocabulary) for _ in range(rng.randint(1, 12))]
        texts.append("".join(parts).replace("▁", " "))
    return texts


def test_ids_of_texts(checkpoint: Checkpoint) -> None:
    """Ids of sentences, golden texts and 1500 random strings with tags."""
    texts = SENTENCES + [r["text"] for r in load_json("processor")["texts"]] + random_texts(checkpoint, 1500)
    ours = checkpoint.engine.tokenizer.encode_with_tags
    wrong = [(t, ours(t), checkpoint.hf.text_ids(t)) for t in texts if ours(t) != checkpoint.hf.text_ids(t)]
    assert not wrong, f"{len(wrong)} of {len(texts)} differ, the first: {wrong[0]}"


def test_decoded_text(checkpoint: Checkpoint) -> None:
    """Decoding of random ids: special ones dropped, tags kept, no clean-up."""
    rng = random.Random(10)
    tokenizer = checkpoint.engine.tokenizer
    for _ in range(500):
        ids = [rng.randrange(tokenizer.size) for _ in range(rng.randint(1, 20))]
        expected = checkpoint.hf.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert tokenizer.decode(ids) == expected, ids


@pytest.fixture(scope="session")
def model(checkpoint: Checkpoint) -> kosmos_edge.Model:
    """The public API on the float32 file."""
    return kosmos_edge.Model(checkpoint.engine, checkpoint.file("f32"))


def generated(checkpoint: Checkpoint, picture: np.ndarray, text: str, answer: list[int]) -> tuple:
    """What transformers' processor makes of a prompt and an answer's ids, as its model card does it."""
    hf = checkpoint.hf
    prompt = hf.processor(text=text, images=Image.fromarray(picture), return_tensors="pt")["input_ids"][0].tolist()
    decoded = hf.processor.batch_decode([prompt + answer], skip_special_tokens=True)[0]
    caption, entities = hf.processor.post_process_generation(decoded)
    return caption, [(name, tuple(span), list(boxes)) for name, span, boxes in entities]


def test_to_hf_of_ill_formed_answers(checkpoint: Checkpoint) -> None:
    """The tuple for random ids: stray tags, blanks before punctuation, a picture's end tag in the answer."""
    rng = random.Random(11)
    tokenizer = checkpoint.engine.tokenizer
    names = ["<phrase>", "</phrase>", "<object>", "</object>", "</delimiter_of_multi_objects/>", "</image>", ".", ",",
             "▁", "▁the", "s", "'", "▁a"]  # fmt: skip
    common, cell = [tokenizer.find(n) for n in names], tokenizer.find("<patch_index_0000>")
    reader, processor = Reader(checkpoint.engine, None), checkpoint.hf.processor
    for _ in range(500):
        ids = []
        for _ in range(rng.randint(1, 25)):
            well = [
                *rng.sample(common, 1),
                common[2],
                cell + rng.randrange(1024),
                cell + rng.randrange(1024),
                common[3],
            ]
            ids += well if rng.random() < 0.2 else [rng.choice([*common, rng.randrange(tokenizer.size)])]
        decoded = processor.batch_decode([ids], skip_special_tokens=True)[0]
        caption, entities = processor.post_process_generation(decoded)
        expected = caption, [(name, tuple(span), list(boxes)) for name, span, boxes in entities]
        assert reader.read_hf(ids) == expected, decoded


def test_to_hf_of_every_verb(checkpoint: Checkpoint, model: kosmos_edge.Model) -> None:
    """caption, ground, locate, ask: to_hf() is transformers' tuple for the same ids."""
    for picture in checkpoint.pictures[:3]:
        image = Image.fromarray(picture)
        results = {
            "<grounding>An image of": model.caption(image, ground=True),
            "An image of": model.caption(image, ground=False),
            "<grounding>Describe this image in detail:": model.ground(image, "Describe this image in detail:"),
            "<grounding><phrase> a dog</phrase>": model.locate(image, "a dog"),
            "Question: What is this? Answer:": model.ask(image, "What is this?"),
        }
        for text, result in results.items():
            assert result.to_hf() == generated(checkpoint, picture, text, result.token_ids), text
