"""The vocabulary: a sentencepiece unigram model of the world's own sentences, then tags and location tokens.

Laid out as the published one: 0 <s>, 1 <pad>, 2 </s>, 3 <unk>, sentencepiece's pieces from its fourth on, <mask>,
eleven tags, 1024 locations. Text is cut at tags and each run of text is encoded by itself, so it starts with a
fresh U+2581 ("▁"). One exception serves the targets: after a tag the model should *write* a bare "." or "," (as
the published model does), so that what it writes reads naturally; `encode(..., target=True)` gives that.

    python vocabulary.py --out RUN                       # writes RUN/sentencepiece.bpe.model
"""

import argparse
import io
import os
import random
import re
import string
import sys
from pathlib import Path

import sentencepiece
import texts
from boxes import BINS
from world import BACKGROUNDS, COLOR_NAMES, SHAPES, TONES, sample_scene

sys.path.append(str(Path(__file__).resolve().parents[2] / "convert" / "models"))  # the package need not be installed
from kosmos_layout import BOS as BOS
from kosmos_layout import EOS as EOS
from kosmos_layout import PAD as PAD
from kosmos_layout import TAGS, UNK, layout, location

MODEL_FILE = "sentencepiece.bpe.model"
_TAG = re.compile("(" + "|".join(map(re.escape, TAGS)) + r"|<patch_index_\d{4}>)")

# Words of other people's questions, so that a sentence outside the world falls into a handful of pieces, not letters.
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "everyday.txt")) as f:
    EVERYDAY = f.read().split()


def corpus(count=30_000, seed=11):
    """Sentences of the world, without tags, then every word alone.

    The trainer looks for pieces in *distinct* words and drops what it sees in one only; each word is therefore given
    with several marks behind it, so that whole words become pieces and prompts stay short."""
    rng = random.Random(seed)
    words = set()
    for i in range(count):
        scene = sample_scene(10_000_000 + i)
        objects = [(o.shape, o.color, o.box) for o in scene.objects]
        ground = (scene.background.kind, scene.background.tone)
        pairs = [
            texts.plain(objects),
            texts.detailed(objects, ground),
            texts.locate(objects, rng),
            texts.describe(objects, rng),
            texts.ask(objects, ground, rng),
            texts.ask(objects, ground, rng),
        ]
        for prompt, target in rng.sample(pairs, 2):
            line = " ".join(_TAG.sub(" ", prompt + target).split()).replace(" .", ".").replace(" ,", ",")
            words.update(re.findall(r"[A-Za-z]+", line))
            yield line
    plurals = [texts.plural(s) for s in SHAPES]
    yield from repeated({*words, *EVERYDAY, *SHAPES, *plurals, *COLOR_NAMES, *BACKGROUNDS, *TONES, *texts.NUMBERS})


def repeated(words):
    """Every word with several marks behind it (see `corpus`)"""
    for word in sorted(words):
        for form in (word, word.capitalize()):
            for _ in range(6):
                yield f"{form} {form}, {form}. {form}? {form}:"


def train(path, pieces=1100, sentences=None):
    """`sentences`: of another world than v0's"""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus() if sentences is None else sentences),
        model_writer=model,
        model_type="unigram",
        vocab_size=pieces,
        normalization_rule_name="nmt_nfkc",
        character_coverage=1.0,
        required_chars=string.printable[:94],
        hard_vocab_limit=False,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    with open(path, "wb") as f:
        f.write(model.getvalue())


class Vocabulary:
    def __init__(self, path):
        self.spm = sentencepiece.SentencePieceProcessor(model_file=path)
        self.path = path
        n = self.spm.get_piece_size()
        self.pieces = [self.spm.id_to_piece(i) for i in range(3, n)]
        self.scores = [self.spm.get_score(i) for i in range(3, n)]
        self.tokens = layout(self.pieces, TAGS, BINS)
        self.id = {t: i for i, t in enumerate(self.tokens)}
        self.first_location = self.id[location(0)]
        self._run = {}

    def __len__(self):
        return len(self.tokens)

    def _encode_run(self, run, target):
        key = (run, target)
        if key not in self._run:
            ids, rest = [], run.strip()
            while target and rest[:1] in (".", ",", ":") and rest:
                ids.append(self.id[rest[0]])
                rest = rest[1:].lstrip()
            self._run[key] = ids + [i + 1 if i >= 3 else UNK for i in self.spm.encode(rest)]
        return self._run[key]

    def encode(self, text, target=False):
        """Text with tags -> ids. `target`: a run that starts with . , or : (after a tag) starts with the bare piece"""
        ids = []
        for part in _TAG.split(text):
            if part in self.id and _TAG.fullmatch(part):
                ids.append(self.id[part])
            elif part.strip():
                ids += self._encode_run(part, target)
        return ids

    def decode(self, ids):
        """Ids -> text with tags; specials dropped, "▁" to blanks, no blank at the start"""
        return "".join(self.tokens[i] for i in ids if i > UNK).replace("\u2581", " ").lstrip(" ")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", required=True)
    ap.add_argument("--pieces", type=int, default=1100)
    a = ap.parse_args()
    path = os.path.join(a.out, MODEL_FILE)
    train(path, a.pieces)
    v = Vocabulary(path)
    print(f"{path}: {len(v.pieces)} pieces, {len(v)} tokens")


if __name__ == "__main__":
    main()
