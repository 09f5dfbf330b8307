"""Losses and readings of the stages: dense labels of patches and cells, words and soft places of the answers."""

import numpy as np
import torch
import torch.nn.functional as F

from .cells import TALLEST, cells
from .vocabulary import EOS, PAD, PLACES

SPREAD = 1.5  # pixels: neighbours of a place are nearly as right
REACH = 5  # places to each side that get a share
QUIET = 0.12  # weight of a point without text


def tensors(batch):
    """Arrays of a batch -> (patches f32 whitened, rows, columns, labels)"""
    patches, at, stats, *labels = (torch.from_numpy(a) for a in batch)
    rows, columns = at[:, 0].long(), at[:, 1].long()
    scale = (1 / stats[:, 1])[:, None, None]
    x = (patches.float() - stats[:, :1, None]) * scale
    x = x * (rows > 0)[..., None]  # padding is zeros, not whitened
    return x, rows, columns, labels


def characters_loss(logits, target):
    """logits (..., classes), target (...) -> weighted mean; points without text weigh little"""
    weight = torch.where(target > 0, 1.0, QUIET)
    each = F.cross_entropy(logits.flatten(0, -2), target.flatten(), reduction="none")
    return (each * weight.flatten()).sum() / weight.sum()


def patch_losses(outputs, labels):
    """Losses of `PatchHeads` by name, and the share of characters that are right"""
    characters, ranks, places, reach = outputs
    target = labels[0].long().flatten(-2)
    on = labels[1] > 0
    out = {"characters": characters_loss(characters, target)}
    if on.any():
        out["order"] = F.cross_entropy(ranks[on], labels[1][on].long())
        out["before"] = F.cross_entropy(places[on], labels[2][on].long())
        wanted = labels[3][on]
        out["reach"] = F.smooth_l1_loss(reach[on], wanted.sign() * wanted.abs().log1p(), beta=0.2)
    with torch.no_grad():
        text = target > 0
        right = (characters.argmax(-1) == target)[text].float().mean()
        quiet = (characters.argmax(-1) == 0)[~text].float().mean()
        order = (ranks.argmax(-1) == labels[1])[on].float().mean()
        before = (places.argmax(-1) == labels[2])[on].float().mean()
    return out, {"right": right, "quiet": quiet, "order_right": order, "before_right": before}


PATCH_WEIGHTS = {"characters": 1.0, "order": 0.15, "before": 0.15, "reach": 0.5}


class Cells:
    """Which patch each head of the resampler is held to, for a batch's grids"""

    def __init__(self, max_patches, heads):
        place = np.array(cells(max_patches))
        self.row = torch.tensor(2 * place[:, 0][None] + [[0], [0], [1], [1]])  # (4, L), 0-based
        self.column = torch.tensor(2 * place[:, 1][None] + [[0], [1], [0], [1]])
        self.heads, self.max_patches = heads, max_patches
        assert self.row.max() < TALLEST

    def index(self, rows, columns):
        """((B, 4, L) patch of each part, (B, 4, L) whether the grid has it)"""
        r, c = rows.amax(1)[:, None, None], columns.amax(1)[:, None, None]
        inside = (self.row < r) & (self.column < c)
        return torch.where(inside, self.row * c + self.column, 0), inside

    def attention_loss(self, weights, index, inside):
        """Mean -log of the weight that each head gives to its patch. weights (B, heads, L, P + L)"""
        each = [weights[:, h].gather(-1, index[:, h % 4, :, None])[..., 0][inside[:, h % 4]] for h in range(self.heads)]
        return -torch.cat(each).mean()


def padded(vocabulary, answers, tokens):
    """(B, tokens) ids, PAD behind each answer, which is cut where it does not fit"""
    ids = np.full((len(answers), tokens), PAD, np.int64)
    for row, lines in zip(ids, answers, strict=True):
        one = vocabulary.ocr(lines)[:tokens]
        row[: len(one)] = one
    return torch.from_numpy(ids)


def looked_at(answers, looks, tokens):
    """(B, tokens): the cell to look at when each token is said, -1 where that is no matter.

    A box begins at the first character and ends at the last; the line's end is behind the last"""
    out = np.full((len(answers), tokens), -1, np.int64)
    for row, lines, cells_of_lines in zip(out, answers, looks, strict=True):
        at = []
        for (_, text), found in zip(lines, cells_of_lines, strict=True):
            if len(text) != len(found):
                raise ValueError(f"{len(found)} cells for {text!r}")
            at += [found[0]] * 3 + [found[-1]] * 2 + [-1, *found, found[-1]]
        row[: len(at)] = at[:tokens]
    return torch.from_numpy(out)


def look_loss(watched, wanted):
    """Mean -log of the weight that watched heads give to the wanted latents. watched: [(B, heads, T + 1, keys)]"""
    on = wanted >= 0
    index = (wanted.clamp(min=0) + 2)[:, None, :, None]  # <s> and <image> stand before the latents
    each = [-w[:, :, :-1].gather(-1, index.expand(-1, w.shape[1], -1, -1))[..., 0].mean(1)[on] for w in watched]
    return torch.cat(each).mean() if on.any() else sum(w.sum() for w in watched) * 0


def text_losses(hidden, table, ids, base):
    """(loss of words, loss of places, share right of words, mean distance in pixels of places).

    hidden (B, T + 1, D) and ids (B, T): row t foretells ids[t]"""
    on = ids != PAD
    logits, ids = hidden[:, :-1][on] @ table.T, ids[on]
    place = ids >= base
    log_p = logits.log_softmax(-1)
    words = -log_p[~place].gather(1, ids[~place][:, None]).mean()
    p, at = log_p[place], ids[place]
    near = torch.arange(-REACH, REACH + 1)
    share = torch.exp(-0.5 * (near / SPREAD) ** 2)
    index = at[:, None] + 2 * near
    valid = (index >= base) & (index < base + 2 * PLACES)
    share = share * valid
    share = share / share.sum(1, keepdim=True)
    picked = p.gather(1, index.clamp(base, base + 2 * PLACES - 1))
    # less the entropy of the shares, so that a perfect answer costs nothing
    places = (share * ((share + 1e-9).log() - picked)).sum(1).mean() if len(at) else words * 0
    with torch.no_grad():
        right = (logits[~place].argmax(-1) == ids[~place]).float().mean()
        ends = (logits.argmax(-1) == EOS)[ids == EOS].float().mean()
        guess = p.argmax(-1)
        far = (((guess - base) // 2 - (at - base) // 2).abs().float().clamp(max=200)).mean() if len(at) else words * 0
    return words, places, {"right": right, "ends": ends, "pixels": far}
