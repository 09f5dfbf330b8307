"""The vocabulary: one token for each character, in the form of cl100k_base's byte-level BPE, and KOSMOS-2.5's tags.

Bytes are the base; merges join the bytes of a character of two or three bytes, and nothing else. So every text can be
written, a character of the world is one token, and the reader copies what it sees letter by letter.
Ids: <s> <pad> </s> <unk>, 256 bytes, merges, <mask>, tags, then <x_0> <y_0> <x_1> <y_1> ...
"""

from .cells import LONGEST
from .paint import PATCH
from .texts import EXTRA

BOS, PAD, EOS, UNK = range(4)
TAGS = ("<ocr>", "<image>", "</image>", "</chunk>", "<bbox>", "</bbox>", "<md>")
PLACES = LONGEST * PATCH  # <x_i> and <y_i>: the longest side of a resized picture within 16 : 1
# Latin-1's letters and signs, and the punctuation of print; the world of today has those of EXTRA
JOINED = EXTRA + "".join(chr(c) for c in range(0xA1, 0x100) if chr(c) not in EXTRA) + "–—‘’“”„•…™"
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def alphabet():
    """GPT-2's printable character of each byte"""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return {b: chr(b if b in plain else next(spare)) for b in range(256)}


class Vocabulary:
    """tokens: all in order of id; id: the id of each; merges: pairs in order"""

    def __init__(self):
        letter = alphabet()
        self.tokens = ["<s>", "<pad>", "</s>", "<unk>"] + [letter[b] for b in range(256)]
        self.merges = []
        known = set(self.tokens)
        for c in JOINED:
            parts = [letter[b] for b in c.encode()]
            while len(parts) > 1:
                pair = parts[0] + parts[1]
                if pair not in known:
                    self.merges.append((parts[0], parts[1]))
                    self.tokens.append(pair)
                    known.add(pair)
                parts[:2] = [pair]
        self.tokens += ["<mask>", *TAGS]
        self.base = len(self.tokens)  # of <x_0>: tokens without places
        self.tokens += [t for i in range(PLACES) for t in (f"<x_{i}>", f"<y_{i}>")]
        self.id = {t: i for i, t in enumerate(self.tokens)}
        self.characters = {c: self.id["".join(letter[b] for b in c.encode())] for c in JOINED}
        self.bytes = [self.id[letter[b]] for b in range(256)]
        self.letters = {v: k for k, v in letter.items()}

    def __len__(self):
        return len(self.tokens)

    def encode(self, text):
        """Ids of a text without tags, as the BPE gives them"""
        out = []
        for c in text:
            out += [self.characters[c]] if c in self.characters else [self.bytes[b] for b in c.encode()]
        return out

    def decode(self, ids):
        """Text of ids, tags as they are written"""
        out, run = [], bytearray()
        for i in ids:
            token = self.tokens[i]
            if 4 <= i < self.base - len(TAGS) - 1:
                run += bytes(self.letters[c] for c in token)
            else:
                out += [run.decode("utf-8", "replace"), token]
                run = bytearray()
        return "".join(out) + run.decode("utf-8", "replace")

    def place(self, axis, value):
        """Id of <x_value> (axis 0) or <y_value> (axis 1)"""
        return self.base + 2 * min(max(int(value), 0), PLACES - 1) + axis

    def ocr(self, lines):
        """Ids of an answer to <ocr>: [(box, text)] -> <bbox><x_a><y_b><x_c><y_d></bbox>text\\n ... </s>"""
        out = []
        for box, text in lines:
            out.append(self.id["<bbox>"])
            out += [self.place(i % 2, v) for i, v in enumerate(box)]
            out += [self.id["</bbox>"], *self.encode(text + "\n")]
        return [*out, EOS]

    def before(self, task):
        """Ids around the image: start, image, its end, task (`ocr` or `md`)"""
        return [BOS, self.id["<image>"], self.id["</image>"], self.id[f"<{task}>"]]
