"""Dense heads of the wider world: linear read-outs of each patch, a direct signal for the ViT, thrown away later.

Per patch: is there an object, its class, its colour, its rank from the left, its box. Per picture, from the class
token: how many objects, what kind of background. Targets come from the map of who is on top that the renderer gives.
All shapes are static: what does not count has weight zero.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F
from boxes import BINS

from wide import spec

UNSURE = -100
PART_WEIGHTS = {"object": 1.0, "class": 1.5, "color": 0.7, "rank": 0.4, "box": 1.0, "count": 0.5, "kind": 0.2}


def patch_owner(owner, grid):
    """(B, S, S) object numbers -> (B, P): 0 background, i + 1 an object that covers 12 % of the patch, UNSURE between.

    Every object owns at least the patch that it covers most."""
    b, size = owner.shape[:2]
    cells = owner.view(b, grid, size // grid, grid, size // grid)
    share = torch.stack([(cells == i + 1).float().mean((2, 4)) for i in range(spec.MAX_OBJECTS)], -1).flatten(1, 2)
    most, which = share.max(-1)
    out = torch.where(most >= 0.12, which + 1, torch.where(most > 0.03, UNSURE, 0))
    best, at = share.max(1)  # (B, objects)
    for i in range(spec.MAX_OBJECTS):
        missing = (best[:, i] > 0) & ~(out == i + 1).any(1)
        out.scatter_(1, at[:, i : i + 1], torch.where(missing[:, None], i + 1, out.gather(1, at[:, i : i + 1])))
    return out


def soft_bins(target, width=1.0):
    """(...,) bins -> (..., 32) Gaussian of `width` bins around each"""
    p = torch.exp(-0.5 * ((torch.arange(BINS, device=target.device) - target[..., None].float()) / width) ** 2)
    return p / p.sum(-1, keepdim=True)


class DenseHeads(nn.Module):
    def __init__(self, dim, classes):
        super().__init__()
        self.parts = {"object": 2, "class": classes, "color": len(spec.COLOR_NAMES) + 1}
        self.parts.update(rank=spec.MAX_OBJECTS, box=4 * BINS)
        self.picture_parts = {"count": spec.MAX_OBJECTS + 1, "kind": len(spec.KINDS)}
        self.patch = nn.Linear(dim, sum(self.parts.values()))
        self.picture = nn.Linear(dim, sum(self.picture_parts.values()))

    def forward(self, features):
        """(B, 1 + P, D) unit length -> {part: (B, P, n)}, {part: (B, n)}"""
        x = features * features.shape[-1] ** 0.5
        patch = self.patch(x[:, 1:]).split(list(self.parts.values()), -1)
        picture = self.picture(x[:, 0]).split(list(self.picture_parts.values()), -1)
        return dict(zip(self.parts, patch, strict=True)), dict(zip(self.picture_parts, picture, strict=True))

    def loss(self, features, owner, batch):
        """-> weighted sum, {part: detached loss}. owner (B, P) of `patch_owner`"""
        patch, picture = self(features)
        inside = (owner > 0).float()
        rank = (owner - 1).clamp_min(0)
        weight = inside / inside.sum().clamp_min(1)
        part = {"object": F.cross_entropy(patch["object"].flatten(0, 1), torch.where(owner > 0, 1, owner).flatten())}
        for k in ("class", "color"):
            part[k] = (
                F.cross_entropy(patch[k].transpose(1, 2), batch[k].gather(1, rank), reduction="none") * weight
            ).sum()
        part["rank"] = (F.cross_entropy(patch["rank"].transpose(1, 2), rank, reduction="none") * weight).sum()
        box = batch["box"].gather(1, rank[..., None].expand(-1, -1, 4))
        log_box = patch["box"].unflatten(-1, (4, BINS)).float().log_softmax(-1)
        part["box"] = -((soft_bins(box) * log_box).sum(-1).mean(-1) * weight).sum()
        for k in picture:
            part[k] = F.cross_entropy(picture[k], batch[k])
        return sum(PART_WEIGHTS[k] * v for k, v in part.items()), {k: v.detach() for k, v in part.items()}


@torch.no_grad()
def read_out(heads, features, owner, batch):
    """How the heads do: share of objects named, colour right where there is one, box IoU, picture heads right"""
    patch, picture = heads(features)
    named, colored, overlap = [], [], []
    edges = patch["box"].unflatten(-1, (4, BINS)).float().softmax(-1) @ (torch.arange(BINS, device=owner.device) + 0.5)
    score = {k: patch[k].float().log_softmax(-1) for k in ("class", "color")}
    for i in range(spec.MAX_OBJECTS):
        own = (owner == i + 1).float()[..., None]
        there = (batch["count"] > i) & (own.sum((1, 2)) > 0)
        if not there.any():
            continue
        named.append(((score["class"] * own).sum(1).argmax(-1) == batch["class"][:, i])[there])
        hue = there & (batch["color"][:, i] < len(spec.COLOR_NAMES))
        colored.append(((score["color"] * own).sum(1).argmax(-1) == batch["color"][:, i])[hue])
        said = ((edges * own).sum(1) / own.sum(1).clamp_min(1))[there]
        true = batch["box"][:, i][there].float()
        true = torch.stack([true[:, 0], true[:, 1], true[:, 2] + 1, true[:, 3] + 1], 1)
        said = torch.stack([said[:, 0] - 0.5, said[:, 1] - 0.5, said[:, 2] + 0.5, said[:, 3] + 0.5], 1)
        cross = (torch.minimum(said, true)[:, 2:] - torch.maximum(said, true)[:, :2]).clamp_min(0).prod(-1)
        areas = sum((v[:, 2:] - v[:, :2]).clamp_min(0).prod(-1) for v in (said, true))
        overlap.append(cross / (areas - cross))
    mean = {k: torch.cat(v).float().mean().item() for k, v in (("named", named), ("color", colored), ("iou", overlap))}
    mean.update({k: (picture[k].argmax(-1) == batch[k]).float().mean().item() for k in picture})
    return {k: round(v, 4) for k, v in mean.items()}
