"""Trains the variant of nano that learns in context, on one core. The ViT is the packaged nano's and stays as it is.

    python -m incontext.train rows --run RUN                          # resampler, on linear heads; a minute or two
    python -m incontext.train episodes --run RUN --steps 6000         # decoder, on episodes; resumes when run again
    python -m incontext.train episodes --run RUN --steps 8000 --fall 2000       # goes on, with the rate falling
    python -m incontext.train export --run RUN --out RUN/export       # for kosmos-edge convert

RUN has bank/ of `incontext.bank`, and valid/ for the looks (without it they are at the pictures of bank/).
RUN/log.jsonl: loss of the words by number of shots before them, and every --look steps how often the right one of an
episode's words is the likeliest, on pairs of word and value that are held out.
"""

import argparse
import math
import os
import random
import shutil
import time

import numpy as np
import torch
import torch.nn.functional as F
import vocabulary
from common import Log, load, one_thread, save
from export import new_model, write
from optimiser import Optimiser, schedule
from world import COLOR_NAMES, SHAPES

from incontext import episodes, sequence, words
from incontext.bank import Bank, read_tower

DECODER = {"dim": 96, "heads": 3, "ffn": 192, "latents": 1, "text_layers": 3}
PIECES = 900  # at most; the words, the prompt's words and every character become pieces
CLASSES = (2, 2, 2, 3, 4)  # drawn from, for each episode
FIRST_WEIGHT = 0.1  # the first word of an episode cannot be known
END_WEIGHT = 0.1
# At the start:
LOOK = 2.0  # how sharply the first layer looks at its place
MATCH = 1.8  # how sharply the second compares pictures
LABEL = 6.0  # how much more it looks at labels than at all else
SLOW = 6  # directions that hold nearly all of the slow sines of a prompt
FLAG = 0.4  # the share of a label's length that all labels have in common
GAIN = 3.0  # of the closing norm: labels stay at length 1, and one of them must outweigh all others
VALID_SEED = "valid"


def vocabulary_of(run):
    """The vocabulary of RUN, trained when it is first asked for"""
    path = os.path.join(run, vocabulary.MODEL_FILE)
    if not os.path.exists(path):
        os.makedirs(run, exist_ok=True)
        vocabulary.train(path, PIECES, words.sentences())
    return vocabulary.Vocabulary(path)


def fresh_model(v, tower=None, decoder=None):
    """A model with the packaged nano's ViT, which is not trained. tower: of bank.read_tower"""
    config, weights = tower or read_tower()
    model = new_model(v, config={**config, **(decoder or DECODER)})
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if unexpected or any(name.startswith("vision_model.") for name in missing):
        raise ValueError(f"expected the ViT's tensors, got others or too few: {unexpected} {missing}")
    model.vision_model.requires_grad_(False)
    start_decoder(model, sequence.Sequence(v, model.config["latents"]))
    return model


def reserved(config):
    """Dimensions that no word or row uses at the start: those that tell places best (the quickest sines and cosines, as
    many as a head has), and one that tells labels from all else"""
    half, size = config["dim"] // 2, config["dim"] // config["heads"]
    return [*range(size // 2), *range(half, half + size // 2)], size // 2


@torch.no_grad()
def start_decoder(model, made):
    """A start that knows how to look things up, but not what counts. The first layer looks at the picture that was just
    shown, the second one at labels whose picture is like the one that is asked about, and both copy what they look at.
    Plain starts were at chance after 300 steps. made: the model's Sequence."""
    text, dim, heads = model.text_model.model, model.config["dim"], model.config["heads"]
    (places, flag), size, half = reserved(model.config), dim // heads, dim // 2
    content = [n for n in range(dim) if n not in places and n != flag]
    words, labels = text.embed_tokens.weight, torch.from_numpy(made.words)
    words[:, [*places, flag]] = 0
    words[:, content] -= words[:, content].mean(1, keepdim=True)  # so that norms take nothing off that differs
    words.copy_(F.normalize(words, dim=-1))
    words[labels] *= (1 - FLAG**2) ** 0.5
    words[labels, flag] = FLAG
    text.layer_norm.weight.fill_(GAIN)
    # What all prompts have in common: the slow sines, the mean that norms take off, tags and the prompt's own words. No
    # picture is to be compared by these.
    sines = torch.linalg.svd(text.positions[2:60, content], full_matrices=False)[2][:SLOW]
    shared = torch.cat([sines, torch.ones(1, len(content)), words[sorted({0, *made.shot})][:, content]]).T
    copy = torch.zeros(dim, dim)
    copy[content, content] = 1
    for n, layer in enumerate(text.layers):
        a = layer.self_attn
        layer.ffn.fc2.weight.mul_(0.1)
        if n > 1:
            a.out_proj.weight.mul_(0.1)
            continue
        a.v_proj.weight.copy_(copy)
        a.out_proj.weight.copy_(copy)
        for part in (a.q_proj, a.k_proj):
            part.weight.zero_()
        for h in range(heads):
            query, key = (part.weight[h * size : (h + 1) * size] for part in (a.q_proj, a.k_proj))
            if n == 1:
                mixed = torch.cat([shared, torch.randn(len(content), len(content) - shared.shape[1])], 1)
                basis = MATCH * torch.linalg.qr(mixed)[0].T[shared.shape[1] :][: size - 1]
                for part in (query, key):
                    part[: len(basis), content] = basis
                key[-1, flag] = a.q_proj.bias[(h + 1) * size - 1] = LABEL
                continue
            for i in range(size // 2):
                angle = made.reach * 10000 ** (-i / (half - 1))  # model.sinusoid's frequencies
                query[2 * i, i], query[2 * i, half + i] = LOOK * math.cos(angle), -LOOK * math.sin(angle)
                query[2 * i + 1, i], query[2 * i + 1, half + i] = LOOK * math.sin(angle), LOOK * math.cos(angle)
                key[2 * i, i] = key[2 * i + 1, half + i] = LOOK


# ------------------------------------------------------------------------------------------ the resampler
def train_rows(model, features, kinds, steps, batch=64, rate=2e-3, log=print):
    """Resampler and linear heads that read shape and colour off its rows; the heads are thrown away. Last, the rows are
    brought to a mean of nothing and to the length of the words' embeddings.

    -> share of (shapes, colours) named right in the last tenth of the steps"""
    resampler, dim = model.image_to_text_projection, model.config["dim"]
    heads = torch.nn.Linear(model.config["latents"] * dim, len(SHAPES) + len(COLOR_NAMES))
    params = [*resampler.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(params, lr=rate, weight_decay=0.01)
    right, keep = [], torch.ones(dim)
    places, flag = reserved(model.config)
    keep[[*places, flag]] = 0
    for step in range(steps):
        index = np.sort(np.random.default_rng((3, step)).integers(0, len(kinds), batch))
        x = torch.from_numpy(np.asarray(features[index], np.float32))
        shape, color = torch.from_numpy(kinds[index]).T
        said = heads((resampler(x) * keep).flatten(1)).split((len(SHAPES), len(COLOR_NAMES)), -1)
        loss = F.cross_entropy(said[0], shape) + F.cross_entropy(said[1], color)
        optimiser.zero_grad()
        loss.backward()
        for group in optimiser.param_groups:
            group["lr"] = rate * schedule(step, steps, steps // 2, min(50, max(1, steps // 10)))
        optimiser.step()
        named = [(s.argmax(-1) == t).float().mean().item() for s, t in zip(said, (shape, color), strict=True)]
        if step >= steps * 9 // 10:
            right.append(named)
        if step % 50 == 0 or step == steps - 1:
            log(stage="rows", step=step, loss=round(loss.item(), 4), shape=round(named[0], 3), color=round(named[1], 3))
    with torch.no_grad():
        out = resampler.x_attn.out_proj
        for part in (out.weight, out.bias):
            part[keep == 0] = 0
            part[keep == 1] -= part[keep == 1].mean(0)
        rows = resampler(torch.from_numpy(np.asarray(features[:512], np.float32)))
        out.bias.sub_(rows.mean((0, 1)))  # what all pictures have in common would make all alike
        factor = dim**-0.5 / (rows - rows.mean((0, 1))).pow(2).mean().sqrt()
        out.weight.mul_(factor)
        out.bias.mul_(factor)
    return np.mean(right, 0)


@torch.no_grad()
def rows_of(model, features, batch=512):
    """(N, 1 + P, D) features -> (N, L, D) rows of the decoder"""
    parts = range(0, len(features), batch)
    return torch.cat(
        [model.image_tokens(torch.from_numpy(np.asarray(features[at : at + batch], np.float32))) for at in parts]
    )


# ------------------------------------------------------------------------------------------ the decoder
def arrays(drawn, by_kind, rng):
    """Episodes -> (numbers of pictures, numbers of words), (B, pictures) each"""
    pictures = np.array([[rng.choice(by_kind[kind]) for kind in e.kinds] for e in drawn])
    return pictures, np.array([[e.words[n] for n in e.classes] for e in drawn])


def batch_at(step, size, by_kind, seed):
    """Batch number `step`: a function of (seed, step) only"""
    rng = random.Random(f"{seed}:{step}")
    drawn = [episodes.draw(rng, rng.choice(CLASSES)) for _ in range(size)]
    return arrays(drawn, by_kind, rng)


class Trainer:
    """The decoder with its optimiser; the embeddings of the labels stay as they were drawn, so that a word which no
    episode has is like any other."""

    def __init__(self, model, v, muon_lr=0.01, adam_lr=3e-3):
        self.model, self.step = model, 0
        self.sequence = sequence.Sequence(v, model.config["latents"])
        self.labels = torch.from_numpy(self.sequence.words)
        self.drawn = model.text_model.model.embed_tokens.weight.detach()[self.labels].clone()
        self.optimiser = Optimiser([(list(model.text_model.named_parameters("text_model")), 1.0)], muon_lr, adam_lr)

    def train(self, rows, named, factor):
        """rows (B, pictures, L, D), named (B, pictures) words -> (loss by number of shots before, loss of the end)"""
        each, end = sequence.losses(self.sequence, self.model, rows, named)
        weight = torch.ones(len(each))
        weight[0] = FIRST_WEIGHT
        ((each * weight).sum() / weight.sum() + END_WEIGHT * end).backward()
        self.optimiser.step(factor)
        with torch.no_grad():
            self.model.text_model.model.embed_tokens.weight[self.labels] = self.drawn
        self.step += 1
        return each.detach(), end.item()

    def state(self):
        return {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict(), "step": self.step,
                "drawn": self.drawn}  # fmt: skip

    def resume(self, state):
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.drawn = state["step"], state["drawn"]


def look(trainer, rows, by_kind, count=200, condition="pairs", classes=2):
    """{rule: share of right answers behind 0, 1, 2, 4 and 8 shots}, on episodes that training never had"""
    found = {}
    for rule in episodes.RULES:
        drawn = episodes.series(f"{VALID_SEED} {rule}", count, classes=classes, rule=rule, condition=condition)
        pictures, named = arrays(drawn, by_kind, random.Random(0))
        candidates = np.array([e.words for e in drawn])
        said = sequence.answers(trainer.sequence, trainer.model, rows[torch.from_numpy(pictures)], named, candidates)
        right = (said == torch.tensor([e.classes for e in drawn])).float().mean(0)
        found[rule] = [round(right[k].item(), 3) for k in (0, 1, 2, 4, 8)]
    return found


def stage_rows(a, log):
    bank = Bank(os.path.join(a.run, "bank"))
    model = fresh_model(vocabulary_of(a.run))
    right = train_rows(model, bank.features, bank.kinds, a.steps or 200, log=log)
    log(stage="rows", named=[round(float(r), 4) for r in right])
    save(os.path.join(a.run, "rows.pt"), model.state_dict())


def stage_episodes(a, log):
    v = vocabulary_of(a.run)
    model = fresh_model(v)
    model.load_state_dict(load(os.path.join(a.run, "rows.pt")))
    model.image_to_text_projection.requires_grad_(False)
    trainer, path = Trainer(model, v, a.muon, a.adam), os.path.join(a.run, "episodes.pt")
    if os.path.exists(path):
        trainer.resume(load(path))
    bank = Bank(os.path.join(a.run, "bank"))
    rows = known = rows_of(model, bank.features)
    valid = bank
    if os.path.exists(os.path.join(a.run, "valid")):
        valid = Bank(os.path.join(a.run, "valid"))
        known = rows_of(model, valid.features)
    if not trainer.step:
        log(stage="look", step=0, **look(trainer, known, valid.by_kind))  # what the start alone can do
    sums, began, first = [], time.process_time(), trainer.step
    while trainer.step < a.steps:
        pictures, named = batch_at(trainer.step, a.batch, bank.by_kind, a.seed)
        factor = schedule(trainer.step, a.steps, a.fall, a.warm)
        sums.append(trainer.train(rows[torch.from_numpy(pictures)], named, factor))
        done = trainer.step == a.steps
        if trainer.step % a.every == 0 or done:
            mean = torch.stack([each for each, _ in sums]).mean(0)
            seconds = (time.process_time() - began) / (trainer.step - first)
            log(stage="episodes", step=trainer.step, loss=[round(x, 3) for x in mean.tolist()],
                end=round(float(np.mean([end for _, end in sums])), 4), cpu_seconds_each=round(seconds, 3))  # fmt: skip
            sums = []
        if trainer.step % a.look == 0 or done:
            save(path, trainer.state())
            log(stage="look", step=trainer.step, **look(trainer, known, valid.by_kind))


def stage_export(a, log):
    v = vocabulary_of(a.run)
    model = fresh_model(v)
    model.load_state_dict(load(os.path.join(a.run, "episodes.pt"))["model"])
    write(a.out, model.eval(), v)
    here = os.path.dirname(os.path.abspath(__file__))
    shutil.copy(os.path.join(here, "about.json"), os.path.join(a.out, "kosmos_edge.json"))
    print(f"{a.out}: {sum(p.numel() for p in model.parameters()):,} parameters, {len(v)} tokens")


STAGES = {"rows": stage_rows, "episodes": stage_episodes, "export": stage_export}


def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("stage", choices=STAGES)
    ap.add_argument("--run", required=True)
    ap.add_argument("--steps", type=int, help="rows: 200 if not given; episodes: steps in all, earlier ones included")
    ap.add_argument("--fall", type=int, default=0, help="the rates fall over so many steps at the end")
    ap.add_argument("--warm", type=int, default=20, help="steps over which the rates rise")
    ap.add_argument("--batch", type=int, default=16, help="episodes in a step")
    ap.add_argument("--muon", type=float, default=0.01, help="rate of the matrices")
    ap.add_argument("--adam", type=float, default=3e-3, help="rate of everything else")
    ap.add_argument("--every", type=int, default=50, help="steps between two lines of the log")
    ap.add_argument("--look", type=int, default=250, help="steps between two looks, with a checkpoint each")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--out", help="export: the checkpoint's folder")
    return ap


def main():
    a = parser().parse_args()
    if a.stage == "episodes" and not a.steps:
        raise SystemExit("--steps: expected for episodes")
    if a.stage == "export" and not a.out:
        raise SystemExit("--out: expected for export")
    one_thread(a.seed)
    STAGES[a.stage](a, Log(os.path.join(a.run, "log.jsonl")))


if __name__ == "__main__":
    main()
