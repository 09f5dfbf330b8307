"""Greedy writing with a key-value cache, many prompts at a time."""

import math

import torch
from model import attention
from vocabulary import EOS


def _advance(text, x, position, cache):
    """Rows x (B, n, D) at `position` (n,) behind what `cache` holds -> hidden (B, n, D); the cache grows by n"""
    x = x * math.sqrt(x.shape[-1]) + text.positions[position]
    n = len(position)
    mask = torch.full((n, n), float("-inf"), device=x.device).triu(1) if n > 1 else None
    for layer, seen in zip(text.layers, cache, strict=True):
        a = layer.self_attn
        h = layer.self_attn_layer_norm(x)
        k, v = a.k_proj(h), a.v_proj(h)
        if seen:
            k, v = torch.cat([seen[0], k], 1), torch.cat([seen[1], v], 1)
        seen[:] = k, v
        x = x + a.out_proj(a.inner_attn_ln(attention(a.q_proj(h), k, v, a.heads, mask)))
        x = x + layer.ffn(layer.final_layer_norm(x))
    return text.layer_norm(x)


@torch.no_grad()
def _write(model, image_tokens, prompts, limit):
    text = model.text_model.model
    b, device = len(prompts), image_tokens.device

    def embedded(ids):
        return text.embed_tokens(torch.tensor(ids, device=device))

    opening = embedded([0, model.image_tags[0]]).expand(b, -1, -1)
    closing = embedded([model.image_tags[1]]).expand(b, -1, -1)
    x = torch.cat([opening, image_tokens, closing, embedded(prompts)], 1)
    cache = [[] for _ in text.layers]
    hidden = _advance(text, x, torch.arange(2, 2 + x.shape[1], device=device), cache)
    at, out, done = 2 + x.shape[1], [], torch.zeros(b, dtype=torch.bool, device=device)
    for _ in range(limit):
        token = model.logits(hidden[:, -1]).argmax(-1)
        token[done] = EOS
        out.append(token)
        done |= token == EOS
        if done.all():
            break
        hidden = _advance(text, text.embed_tokens(token[:, None]), torch.tensor([at], device=device), cache)
        at += 1
    return [row[: row.index(EOS)] if EOS in row else row for row in torch.stack(out, 1).tolist()]


def write(model, image_tokens, prompts, limit=96, size=250):
    """image_tokens (N, L, D) and N prompts of ids -> N lists of ids, without </s>"""
    out = [None] * len(prompts)
    by_length = {}
    for i, p in enumerate(prompts):
        by_length.setdefault(len(p), []).append(i)
    for index in by_length.values():
        for s in range(0, len(index), size):
            part = index[s : s + size]
            for i, ids in zip(part, _write(model, image_tokens[part], [prompts[i] for i in part], limit), strict=True):
                out[i] = ids
    return out
