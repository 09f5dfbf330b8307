"""Stages B and C: the connector's warm start, then everything together on text.

B. Latent i is taught to attend to patch i and to copy its feature (half a minute; the largest single gain of the
   study behind this recipe: without it boxes hardly come through to the decoder).
C. ViT, connector and decoder learn captions, phrase to box, box to phrase and questions, several texts packed behind
   each picture; the dense heads stay on at half weight. Location targets are softened over neighbouring bins.

    python stage_c.py --run RUN --steps 6000              # needs RUN/stage_a.pt; resumes RUN/stage_c.pt

Whenever the figures on validation scenes improve, the model is exported to RUN/export_latest.
"""

import argparse
import os
import random
import time

import export
import numpy as np
import texts
import torch
import torch.nn.functional as F
from boxes import BINS
from common import Log, batch_at, load, one_thread, save
from data import Batch, Pool, normalise
from evaluate import TorchNano, cases_from_seeds, evaluate
from model import DenseHeads, initialise_locations, packed_layout, soft_bins
from optimiser import Optimiser, schedule
from vocabulary import EOS, MODEL_FILE, PAD, Vocabulary

IGNORE = -100
VALID_SEED = 910_000_000  # neither trained on nor reported
# two sets of texts behind a picture, and room for each in tokens
SHORT = (("caption", 46), ("locate", 19), ("describe", 13), *[("ask", 20)] * 4)
LONG = (("detailed", 60), ("plain", 36), ("locate", 19), ("describe", 13), *[("ask", 20)] * 2)
LONG_SHARE = 0.35
ANSWER_WEIGHT = 4.0  # of an answer's tokens: few among a caption's many, and the slowest to be learned


# ------------------------------------------------------------------------------------------ stage B
def connector_attention(connector, features):
    """The connector's output, and its scores (B, heads, L, P + 1 + L) before softmax"""
    a = connector.x_attn
    memory = connector.memory(features)
    query = a.q_proj(connector.latent_query)[None]
    q, k = (x.unflatten(-1, (a.heads, -1)).transpose(1, 2) for x in (query, a.k_proj(memory)))
    score = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    value = a.v_proj(memory).unflatten(-1, (a.heads, -1)).transpose(1, 2)
    return a.out_proj((score.softmax(-1) @ value).transpose(1, 2).flatten(2)), score


def warm_start(model, pool, log, steps=400, size=48, rate=4e-3):
    connector = model.image_to_text_projection
    with torch.no_grad():
        features = torch.cat(
            [model.features(normalise(Batch(pool, range(s, s + 100)).images)) for s in range(0, 3000, 100)]
        )
    optimiser = torch.optim.AdamW(connector.parameters(), rate, weight_decay=0.0)
    own = torch.arange(model.config["latents"]) + 1  # patch i is row i + 1, after the class token
    for step in range(steps):
        for g in optimiser.param_groups:
            g["lr"] = rate * min(1.0, (step + 1) / 40) * (1 - 0.9 * step / steps)
        x = features[torch.randint(0, len(features), (size,))]
        out, score = connector_attention(connector, x)
        look = F.cross_entropy(score.flatten(0, 2), own.repeat(size * score.shape[1]))
        copy = (out - x[:, 1:]).pow(2).sum(-1).mean()
        (look + 2 * copy).backward()
        torch.nn.utils.clip_grad_norm_(connector.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        if (step + 1) % 100 == 0:
            log(warm=step + 1, look=round(look.item(), 3), copy_error=round(copy.item(), 3))


# ------------------------------------------------------------------------------------------ stage C
def make_text(kind, objects, ground, rng):
    """(prompt, target) of a kind; some with or without <grounding> where the runtime lets a caller choose"""
    if kind == "caption":
        return texts.caption(objects)
    if kind == "plain":
        return texts.plain(objects) if rng.random() < 0.6 else texts.detailed(objects, ground, tagged=False)
    if kind == "detailed":
        return texts.detailed(objects, ground)
    if kind == "locate":
        return texts.locate(objects, rng)
    if kind == "describe":
        prompt, target = texts.describe(objects, rng)
        return (prompt.removeprefix("<grounding>") if rng.random() < 0.15 else prompt), target
    prompt, target = texts.ask(objects, ground, rng)
    return ("<grounding> " + prompt if rng.random() < 0.1 else prompt), target


def pack(batch, kinds, vocabulary, rng):
    """-> ids (B, T); labels (B, T), the next token where it belongs to a target and IGNORE elsewhere; weights (B, T)"""
    total = sum(room for _, room in kinds)
    ids = np.full((len(batch), total), PAD, np.int64)
    labels = np.full((len(batch), total), IGNORE, np.int64)
    weights = np.ones((len(batch), total), np.float32)
    for b in range(len(batch)):
        objects, ground, at = batch.objects(b), tuple(batch.ground[b]), 0
        for kind, room in kinds:
            prompt, target = make_text(kind, objects, ground, rng)
            p = vocabulary.encode(prompt)
            full = p + vocabulary.encode(target, target=True) + [EOS]
            n = len(full) - 1
            if n > room:
                raise ValueError(f"{kind}: {n} tokens, room for {room}: {prompt}{target}")
            ids[b, at : at + n] = full[:-1]
            labels[b, at + len(p) - 1 : at + n] = full[len(p) :]
            if kind == "ask":
                weights[b, at : at + n] = ANSWER_WEIGHT
            at += room
    return torch.from_numpy(ids), torch.from_numpy(labels), torch.from_numpy(weights)


def text_loss(model, hidden, labels, weights, first_location):
    """Cross-entropy of words and tags; of locations against targets softened over bins in x and y"""
    kept = labels != IGNORE
    label = labels[kept]
    score = model.logits(hidden[kept]).float().log_softmax(-1)
    where = label >= first_location
    weight = weights[kept][~where]
    words = (F.nll_loss(score[~where], label[~where], reduction="none") * weight).sum() / weight.sum()
    place = label[where] - first_location
    plane = score[where][:, first_location:].unflatten(-1, (BINS, BINS))
    across = torch.einsum("nyx,nx->ny", plane, soft_bins(place % BINS))
    return words, -(across * soft_bins(place // BINS)).sum(-1).mean()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--run", required=True)
    ap.add_argument("--steps", type=int, default=6000)
    ap.add_argument("--fall", type=int, default=1500)
    ap.add_argument("--batch", type=int, default=64)
    ap.add_argument("--seed", type=int, default=2)
    ap.add_argument("--every", type=int, default=250)
    ap.add_argument("--vision-rate", type=float, default=0.3, help="factor on the rates of the ViT and the dense heads")
    ap.add_argument("--heads-weight", type=float, default=0.5)
    ap.add_argument("--freeze-vision", action="store_true", help="leave the ViT as it is: a quarter less work a step")
    ap.add_argument("--compile", action="store_true")
    ap.add_argument("--bf16", action="store_true")
    a = ap.parse_args()
    one_thread(a.seed)
    pool, vocabulary = Pool(os.path.join(a.run, "pool")), Vocabulary(os.path.join(a.run, MODEL_FILE))
    log = Log(os.path.join(a.run, "stage_c.jsonl"))
    path = os.path.join(a.run, "stage_c.pt")
    model = export.new_model(vocabulary)
    initialise_locations(model, vocabulary.first_location)
    heads = DenseHeads(model.config["dim"])
    groups = {True: [], False: []}
    for name, p in model.named_parameters():
        groups[name.startswith("vision_model")].append((name, p))
    groups[True] += heads.named_parameters()
    optimiser = Optimiser([(groups[False], 1.0), (groups[True], a.vision_rate)], clip=1.0)
    step, seconds, best = 0, 0.0, 0.0
    if os.path.exists(path):
        state = load(path)
        model.load_state_dict(state["model"])
        heads.load_state_dict(state["heads"])
        optimiser.load_state_dict(state["optimiser"])
        step, seconds, best = state["step"], state["seconds"], state["best"]
    else:
        begin, state = time.time(), load(os.path.join(a.run, "stage_a.pt"))
        model.vision_model.load_state_dict(state["vision"])
        heads.load_state_dict(state["heads"])
        warm_start(model, pool, log)
        seconds = time.time() - begin

    # held as bound callables, so that the compiled modules leave the parameters' names alone
    features_of = torch.compile(model.vision_model.model) if a.compile else model.features
    decode = torch.compile(model.decode) if a.compile else model.decode
    layouts = {kinds: packed_layout(model.prefix, [room for _, room in kinds]) for kinds in (SHORT, LONG)}
    cases = cases_from_seeds(VALID_SEED, 200)
    mean = {}
    while step < a.steps:
        begin = time.time()
        rng = random.Random(a.seed * 1_000_003 + step)
        kinds = LONG if rng.random() < LONG_SHARE else SHORT
        batch = batch_at(pool, step, a.batch, a.seed)
        ids, labels, weights = pack(batch, kinds, vocabulary, rng)
        with torch.autocast("cpu", torch.bfloat16, enabled=a.bf16):
            with torch.set_grad_enabled(not a.freeze_vision):
                features = features_of(normalise(batch.images))
            hidden = decode(model.image_tokens(features), ids, layouts[kinds])
            words, places = text_loss(model, hidden, labels, weights, vocabulary.first_location)
        loss, shown = words + 0.5 * places, {"words": words, "places": places}
        if not a.freeze_vision:
            shown["dense"], _ = heads.loss(features.float(), batch.labels())
            loss = loss + a.heads_weight * shown["dense"]
        loss.backward()
        optimiser.step(schedule(step, a.steps, a.fall))
        step += 1
        seconds += time.time() - begin
        for k, v in shown.items():
            mean[k] = 0.95 * mean.get(k, v.item()) + 0.05 * v.item()
        if step % 50 == 0:
            log(step=step, seconds=round(seconds), loss={k: round(v, 3) for k, v in mean.items()})
        if step % a.every == 0 or step == a.steps:
            model.eval()
            r = evaluate(TorchNano(model, vocabulary, [c.image for c in cases]), cases, full=False, per_kind=100)
            log(
                step=step,
                samples=step * a.batch,
                seconds=round(seconds),
                valid={k: r["caption"][k] for k in ("named", "shape", "color", "iou", "hit", "count", "scene")},
                locate=r["locate"]["hit"],
                describe=r["describe"],
                ask={k: v["right"] for k, v in r["ask"].items()},
            )
            score = float(
                np.mean(
                    [
                        r["caption"]["named"],
                        r["caption"]["hit"],
                        r["locate"]["hit"],
                        r["describe"],
                        np.mean([v["right"] for v in r["ask"].values()]),
                    ]
                )
            )
            if score > best:
                best = score
                export.write(os.path.join(a.run, "export_latest"), model, vocabulary)
            model.train()
            save(
                path,
                {
                    "model": model.state_dict(),
                    "heads": heads.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "step": step,
                    "seconds": seconds,
                    "best": best,
                },
            )


if __name__ == "__main__":
    main()
