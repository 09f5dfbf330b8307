"""An episode as the tokens that the runtime makes of it (`kosmos-edge classify --prompt a` with examples):

    <s> <image> slots </image> a WORD <image> slots </image> a WORD ... <image> slots </image> a

Every picture with its words takes the same number of tokens. So one sequence with eight shots holds those with fewer:
what the decoder says behind the k-th "a" is its answer after k - 1 shots.
"""

import numpy as np
import torch
from vocabulary import BOS, EOS

from incontext.words import PROMPT, WORDS

SLOT = 4  # what stands at an image's places until its rows do


class Sequence:
    """Tokens of episodes with a vocabulary, and where in them things stand."""

    def __init__(self, vocabulary, latents):
        prompt = vocabulary.encode(PROMPT)
        self.words = np.array([self._one(vocabulary, word) for word in WORDS])
        opening, closing = vocabulary.id["<image>"], vocabulary.id["</image>"]
        self.shot = [opening, *[SLOT] * latents, closing, *prompt]
        self.latents, self.stride = latents, len(self.shot) + 1
        self.reach = self.stride - 1.5 - (1 + latents) / 2  # from the prompt's end and from the word back to the rows

    @staticmethod
    def _one(vocabulary, word):
        ids = vocabulary.encode(word)
        if len(ids) != 1:
            raise ValueError(f"expected one token for the label {word!r}, got {len(ids)}: more pieces are needed")
        return ids[0]

    def length(self, pictures):
        """Tokens of so many pictures, with the last one's word"""
        return 1 + pictures * self.stride

    def ids(self, words):
        """(B, pictures) numbers of words -> (B, length) tokens"""
        b, n = words.shape
        out = np.empty((b, self.length(n)), np.int64)
        out[:, 0] = BOS
        for i in range(n):
            at = 1 + i * self.stride
            out[:, at : at + self.stride - 1] = self.shot
            out[:, at + self.stride - 1] = self.words[words[:, i]]
        return torch.from_numpy(out)

    def slots(self, pictures):
        """Places of the images' rows, picture by picture"""
        return torch.tensor([1 + i * self.stride + 1 + j for i in range(pictures) for j in range(self.latents)])

    def asking(self, pictures):
        """Places at which the decoder says each picture's word"""
        return torch.tensor([i * self.stride + self.stride - 1 for i in range(pictures)])

    def mask(self, pictures):
        """Causal, additive"""
        n = self.length(pictures)
        return torch.full((n, n), -1e9).triu(1)

    def hidden(self, model, rows, ids):
        """rows (B, pictures, L, D), ids from `ids` -> hidden states (B, length, D)"""
        text = model.text_model.model
        x = text.embed_tokens(ids).index_copy(1, self.slots(rows.shape[1]), rows.flatten(1, 2))
        position = torch.arange(2, 2 + ids.shape[1])
        return text(x, position, self.mask(rows.shape[1]))


def losses(sequence, model, rows, words):
    """-> mean loss of every picture's word (pictures,), and of the end behind it"""
    ids = sequence.ids(words)
    hidden = sequence.hidden(model, rows, ids)
    at = sequence.asking(rows.shape[1])
    said = model.logits(hidden[:, at])
    right = ids[:, at + 1]
    each = torch.nn.functional.cross_entropy(said.transpose(1, 2), right, reduction="none").mean(0)
    ends = model.logits(hidden[:, at[-1] + 1])
    end = torch.nn.functional.cross_entropy(ends, torch.full((len(ids),), EOS))
    return each, end


@torch.no_grad()
def answers(sequence, model, rows, words, candidates):
    """candidates (B, n) numbers of words -> (B, pictures) which of them is the likeliest at each picture"""
    hidden = sequence.hidden(model, rows, sequence.ids(words))
    said = model.logits(hidden[:, sequence.asking(rows.shape[1])])
    among = torch.from_numpy(sequence.words[candidates])[:, None].expand(-1, rows.shape[1], -1)
    return said.gather(2, among).argmax(-1)
