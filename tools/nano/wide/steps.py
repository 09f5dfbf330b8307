"""What one training step computes: losses of the three stages, and the accuracy figures looked at on the way.

A. the ViT on dense heads; B. the connector alone, each latent's heads taught to attend to the patches of its own cell
and to copy them; C. everything on text, with the dense heads on at half weight.
"""

import numpy as np
import torch
import torch.nn.functional as F
from boxes import BINS
from data import MEAN, STD
from model import packed_layout, vision_config

from wide import batches
from wide.heads import patch_owner, soft_bins


def normalised(pixels):
    """(B, 3, S, S) in 0..1 -> as the published preprocessing"""
    mean, std = (torch.tensor(v, device=pixels.device).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (pixels - mean) / std


def on_device(batch, device):
    """Arrays of a batch as tensors on the device"""
    return {k: torch.as_tensor(v).to(device, non_blocking=True) for k, v in batch.items()}


# ------------------------------------------------------------------------------------------ stage B
def cell_patches(config):
    """(latents, heads): the patch that head h of latent i looks at: the quarter h of the latent's cell of the plane.

    With as many patches as latents that is the same patch for all heads; with four times as many, one each."""
    side = int(config["latents"] ** 0.5)
    rows = config["image"] // config["patch"]
    if side * side != config["latents"]:
        raise ValueError(f"{config['latents']} latents are no square")
    out = np.zeros((config["latents"], config["heads"]), np.int64)
    for i in range(config["latents"]):
        for h in range(config["heads"]):
            y, x = i // side + (h // 2 % 2 + 0.5) / 2, i % side + (h % 2 + 0.5) / 2
            out[i, h] = int(y * rows / side) * rows + int(x * rows / side)
    return torch.from_numpy(out)


def warm_start(model, features, steps, log, batch=256, rate=4e-3):
    """Stage B on a stock of features (N, 1 + P, Dv).

    Look: head h of latent i attends to its patch. Copy: the latents together, through a linear map thrown away after,
    give the mean feature of the cell; where widths are equal and cells are single patches that map is left out."""
    device = features.device
    connector, config = model.image_to_text_projection, model.config
    targets = cell_patches(config).to(device)
    same = vision_config(config)["dim"] == config["dim"]
    back = torch.nn.Identity() if same else torch.nn.Linear(config["dim"], vision_config(config)["dim"]).to(device)
    optimiser = torch.optim.AdamW([*connector.parameters(), *back.parameters()], rate, weight_decay=0.0)
    a = connector.x_attn
    for step in range(steps):
        for g in optimiser.param_groups:
            g["lr"] = rate * min(1.0, (step + 1) / 40) * (1 - 0.9 * step / steps)
        x = features[torch.randint(0, len(features), (min(batch, len(features)),), device=device)].float()
        memory = connector.memory(x)
        query = a.q_proj(connector.latent_query)[None]
        q, k = (t.unflatten(-1, (a.heads, -1)).transpose(1, 2) for t in (query, a.k_proj(memory)))
        score = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5  # (B, heads, L, P + 1 + L)
        value = a.v_proj(memory).unflatten(-1, (a.heads, -1)).transpose(1, 2)
        out = a.out_proj((score.softmax(-1) @ value).transpose(1, 2).flatten(2))
        where = (targets.T + 1)[None].expand(len(x), -1, -1)  # after the class token
        look = F.cross_entropy(score.permute(0, 3, 1, 2), where)
        cell = x[:, 1:][:, targets].mean(2)  # (B, L, Dv)
        copy = (back(out) - cell).pow(2).sum(-1).mean()
        (look + 2 * copy).backward()
        torch.nn.utils.clip_grad_norm_(connector.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        if (step + 1) % 100 == 0 or step + 1 == steps:
            log(stage="b", step=step + 1, look=round(look.item(), 4), copy_error=round(copy.item(), 4))


# ------------------------------------------------------------------------------------------ stage C
def text_loss(model, hidden, labels, weights, first_location):
    """Cross-entropy of words and tags; of locations against targets softened over bins in x and y. All (B, T)."""
    kept = (labels != batches.IGNORE).flatten()
    label = labels.flatten()[kept]
    score = model.logits(hidden.flatten(0, 1)[kept]).float().log_softmax(-1)
    where = label >= first_location
    weight = weights.flatten()[kept] * ~where
    own = score.gather(1, label[:, None])[:, 0]
    words = -(own * weight).sum() / weight.sum().clamp_min(1)
    place = (label - first_location).clamp_min(0)
    plane = score[:, first_location:].unflatten(-1, (BINS, BINS))
    across = torch.einsum("nyx,nx->ny", plane, soft_bins(place % BINS))
    places = -((across * soft_bins(place // BINS)).sum(-1) * where).sum() / where.sum().clamp_min(1)
    return words, places


def layouts(model, device):
    """Packed layouts of the two sets of texts, on the device: [short, long]"""
    made = [packed_layout(model.prefix, [room for _, room in k]) for k in (batches.SHORT, batches.LONG)]
    return [(mask.to(device), position.to(device)) for mask, position in made]


def _padded(visible):
    """(B, n) -> positions (B, n) that count visible rows only, and a causal mask (B, 1, n, n) that shuts padding out"""
    position = visible.long().cumsum(1) + 1
    n = visible.shape[1]
    causal = torch.ones(n, n, dtype=torch.bool, device=visible.device).tril()
    allowed = causal[None] & visible[:, None, :]
    allowed |= torch.eye(n, dtype=torch.bool, device=visible.device)[None]
    return position, torch.zeros(allowed.shape, device=visible.device).masked_fill(~allowed, -1e9)[:, None]


def extra_loss(model, tokens, batch, first_location):
    """Two pictures in a row with a caption each, and lines of text without a picture: mean loss of their words"""
    opening, closing = model.image_tags
    pair, line = batch["pair_ids"], batch["line_ids"]
    rows, room = pair.shape[0], pair.shape[2]
    device = pair.device

    def tags(*ids):
        return torch.tensor([ids], device=device).expand(rows, -1)

    first, second = tokens[: 2 * rows : 2], tokens[1 : 2 * rows : 2]
    parts = [tags(0, opening), first, tags(closing), pair[:, 0], tags(opening), second, tags(closing), pair[:, 1]]
    image = torch.ones(rows, tokens.shape[1] + 3, dtype=torch.bool, device=device)
    visible = torch.cat([image, pair[:, 0] != batches.PAD, image[:, 1:], pair[:, 1] != batches.PAD], 1)
    hidden = model.read(parts, *_padded(visible))
    start = [image.shape[1], 2 * image.shape[1] - 1 + room]
    hidden = torch.cat([hidden[:, s : s + room] for s in start], 1)
    ones = torch.ones((), device=device)
    pairs, _ = text_loss(model, hidden, batch["pair_labels"].flatten(1), ones.expand(rows, 2 * room), first_location)
    visible = torch.cat([image[:, :1], line != batches.PAD], 1)
    hidden = model.read([tags(0), line], *_padded(visible))
    labels = batch["line_labels"].clone()
    lines, _ = text_loss(model, hidden[:, 1:], labels, ones.expand(rows, room), first_location)
    return pairs + lines


def vision_batch(composer, heads_grid, batch):
    """Pixels as the model wants them, and who owns which patch"""
    pixels, owner = composer.pictures(batch)
    return normalised(pixels), patch_owner(owner, heads_grid)
