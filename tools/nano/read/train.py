"""Trains nano-read. Both stages go on from RUN/state.pt when they are started again, and end by themselves.

    python -m read.train a --run RUN --until 15:50              # the encoder alone, on labels of every patch
    python -m read.train c --run RUN --until 16:38              # everything, on answers
    python -m read.train c --run RUN --minutes 120 --fall 40    # on another day; the rates fall to nothing at the end

--until HH:MM is today's clock, --minutes counts from the start of the command; SIGTERM ends it, too, with a checkpoint.
--fall: over so many minutes before the end the rates fall to nothing; the state before the fall is kept as
RUN/plateau.pt, and `--from plateau.pt` goes on from there instead. Needs what `fonts.txt` and `texts.py` name.
"""

import argparse
import datetime
import os
import signal
import time

import torch
from common import Log, load, save
from optimiser import Muon

from read import losses
from read.batches import Source, World
from read.model import CONFIG, PRESETS, CellHeads, PatchHeads, Read
from read.vocabulary import Vocabulary

MUON, ADAM = 0.02, 2e-3
AVERAGE = 0.998  # share of the averaged weights that a step leaves
GROWS = 40_000  # pictures of a stage until the whole world is in use
LONG = 264  # tokens of an answer
EARLY = 4000  # pictures of stage c before pages of several lines come
STILL = {  # rates of parts against the rest, by stage; 0: not trained
    "a": {"read.text_model": 0, "read.place_map": 0, "read.image_to_text": 0, "cell_heads": 0},
    "c": {},
}


class Net(torch.nn.Module):
    """The model and the heads of training"""

    def __init__(self, config, vocabulary):
        super().__init__()
        self.read = Read(config, vocabulary.base, (len(vocabulary) - vocabulary.base) // 2)
        self.patch_heads, self.cell_heads = PatchHeads(config["vision_dim"]), CellHeads(config["dim"])


# ------------------------------------------------------------------------------------------ rates
def is_matrix(name, p):
    return p.ndim == 2 and name.startswith("read.") and (".layer." in name or ".layers." in name or "x_attn" in name)


class Rates:
    """Muon for matrices of layers, AdamW for the rest. slow: {start of names: share of the rate}"""

    def __init__(self, net, slow):
        self.net = net

        def groups(matrices, rate):
            split = {}
            for n, p in net.named_parameters():
                if is_matrix(n, p) == matrices:
                    factor = next((f for part, f in slow.items() if n.startswith(part)), 1.0)
                    split.setdefault(factor, []).append(p)
            return [{"params": ps, "lr": rate * f, "peak": rate * f} for f, ps in sorted(split.items()) if f > 0]

        adam = torch.optim.AdamW(groups(False, ADAM), betas=(0.9, 0.98), weight_decay=0.01)
        self.parts = [Muon(groups(True, MUON)), adam]
        self.peaks = [[g["peak"] for g in part.param_groups] for part in self.parts]

    def step(self, factor):
        """Clip, step with `factor` times the peak rates, clear the gradients; the norm before clipping"""
        norm = torch.nn.utils.clip_grad_norm_(
            [p for part in self.parts for g in part.param_groups for p in g["params"]], 2.0
        )
        for part, peaks in zip(self.parts, self.peaks, strict=True):
            for g, peak in zip(part.param_groups, peaks, strict=True):
                g["lr"] = peak * factor
            part.step()
        for p in self.net.parameters():
            p.grad = None
        return norm

    def state(self):
        return [part.state_dict() for part in self.parts]

    def load(self, states):
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)


# ------------------------------------------------------------------------------------------ stages
def plan(stage, seed, number, size, seen):
    """Arguments of `batches.make` for batch `number`; seen: pictures of this stage before it"""
    progress = min(1.0, 0.1 + seen / GROWS)
    if stage == "a":
        return seed, number, size, "short" if number % 3 == 2 else "dense", progress, LONG - 8
    if number % 3 == 2 and seen > EARLY:
        return seed + 1, number, max(1, size // 3), "long", progress, LONG - 8
    return seed + 1, number, size, "short", progress, LONG - 8


class StageA:
    """Dense labels on the encoder alone"""

    def __init__(self, vocabulary, config):
        pass

    def __call__(self, net, batch, number):
        x, rows, columns, labels = losses.tensors(batch[0])
        out, seen = losses.patch_losses(net.patch_heads(net.read.vision_model(x, rows, columns)), labels)
        return sum(losses.PATCH_WEIGHTS[k] * v for k, v in out.items()), {**out, **seen}


class StageC:
    """Answers; dense labels at half weight; heads of resampler and decoder lightly held to where they should look"""

    AUX, HOLD, CELL, LOOK, PLACES = 0.5, 0.1, 0.25, 0.2, 0.3

    def __init__(self, vocabulary, config):
        self.vocabulary = vocabulary
        self.cells = losses.Cells(config["max_patches"], config["heads"])
        self.before = vocabulary.before("ocr")

    def __call__(self, net, batch, number):
        x, rows, columns, labels = losses.tensors(batch[0])
        features, latents, weights = net.read.image(x, rows, columns)
        dense, seen = losses.patch_losses(net.patch_heads(features), labels)
        index, inside = self.cells.index(rows, columns)
        attention = self.cells.attention_loss(weights, index, inside)
        which = number % 4
        target = labels[0].long().flatten(-2).gather(1, index[:, which, :, None].expand(-1, -1, 6))
        on = inside[:, which]
        scale = net.read.config["dim"] ** 0.5  # as the decoder has them
        cell = losses.characters_loss(net.cell_heads(latents * scale, which)[on], target[on])
        longest = max(len(self.vocabulary.ocr(lines)) for lines in batch[1])
        ids = losses.padded(self.vocabulary, batch[1], min(LONG, longest))
        table = net.read.embedding_table()
        hidden, watched = net.read.text(latents, table, self.before, ids)
        look = losses.look_loss(watched, losses.looked_at(batch[1], batch[2], ids.shape[1]))
        words, places, told = losses.text_losses(hidden, table, ids, self.vocabulary.base)
        loss = words + self.PLACES * places + self.HOLD * attention + self.CELL * cell + self.LOOK * look
        loss = loss + self.AUX * sum(losses.PATCH_WEIGHTS[k] * v for k, v in dense.items())
        report = {"words": words, "places": places, "attention": attention, "cell": cell, "look": look, **dense, **seen}
        return loss, {**report, **{"t_" + k: v for k, v in told.items()}}


# ------------------------------------------------------------------------------------------ the loop
class Means:
    """Means of what the steps report, between two lines of the log"""

    def __init__(self):
        self.sums = {}

    def add(self, kind, report):
        for k, v in report.items():
            v = float(v.detach() if torch.is_tensor(v) else v)
            if v == v:  # a share of nothing is not a number
                s = self.sums.setdefault(kind + k, [0.0, 0])
                s[0] += v
                s[1] += 1

    def take(self):
        out = {k: float(f"{s / n:.3g}") for k, (s, n) in self.sums.items()}
        self.sums = {}
        return out


class Training:
    """A run folder's state: net, averaged weights, rates, and where the training stands"""

    def __init__(self, args, config):
        start = os.path.join(args.run, args.start or "state.pt")
        state = load(start) if os.path.exists(start) else None
        if args.start and state is None:
            raise SystemExit(f"{start} is not there")
        self.folder, self.stage = args.run, args.stage
        self.config, vocabulary = state["config"] if state else dict(config), Vocabulary()
        self.net = Net(self.config, vocabulary)
        slow = dict(STILL[args.stage])
        if args.stage == "c":
            slow["read.vision_model"] = args.vision_rate
        self.rates = Rates(self.net, slow)
        self.at = {"stage": args.stage, "number": 0, "seen": 0, "pictures": 0, "minutes": 0.0}
        if state:
            self.net.load_state_dict(state["net"])
            self.at |= {k: state["at"][k] for k in ("pictures", "minutes")}
            if state["at"]["stage"] == args.stage:
                self.at = {k: state["at"][k] for k in self.at}
                if not args.fresh:
                    self.rates.load(state["rates"])
        self.params = dict(self.net.named_parameters())
        self.average = state["average"] if state else {k: p.detach().clone() for k, p in self.params.items()}
        self.step = {"a": StageA, "c": StageC}[args.stage](vocabulary, self.config)

    def train(self, batch, factor):
        loss, report = self.step(self.net, batch, self.at["number"])
        loss.backward()
        report["norm"] = self.rates.step(factor)
        self.at["number"] += 1
        for k in ("seen", "pictures"):
            self.at[k] += len(batch[1])
        keep = min(AVERAGE, self.at["number"] / (9 + self.at["number"]))
        torch._foreach_lerp_(list(self.average.values()), [self.params[k].detach() for k in self.average], 1 - keep)
        return {**report, "loss": loss}

    def keep(self, name="state.pt"):
        state = {"config": self.config, "net": self.net.state_dict(), "average": self.average, "at": self.at}
        save(os.path.join(self.folder, name), {**state, "rates": self.rates.state()})


def deadline(args):
    """Seconds since the epoch at which the training is over"""
    ends = [float("inf")]
    if args.until:
        now = datetime.datetime.now()
        h, m = (int(x) for x in args.until.split(":"))
        left = (now.replace(hour=h, minute=m, second=0) - now).total_seconds()
        if left <= 0:
            raise SystemExit(f"--until {args.until} is past: it is {now:%H:%M}")
        ends.append(time.time() + left)
    if args.minutes:
        ends.append(time.time() + 60 * args.minutes)
    return min(ends)


def run(args, world=lambda: World("train"), config=None):
    """Trains as the command line says; world and config are for tests. The `Training` at its end"""
    end, began = deadline(args), time.time()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    os.makedirs(args.run, exist_ok=True)
    training = Training(args, config or {**CONFIG, **PRESETS[args.preset]})
    at, log = training.at, Log(os.path.join(args.run, "log.jsonl"))
    first, seen = at["number"], at["seen"]
    each = args.batch * (7 / 9 if args.stage == "c" else 1)  # mean of two short batches and a long one
    source = Source(
        lambda n: plan(args.stage, args.seed, n, args.batch, seen + int((n - first) * each)),
        first,
        args.workers,
        world=world,
    )
    means, saved, fell, asked = Means(), time.time(), False, []
    before = signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    print(sum(p.numel() for p in training.net.read.parameters()), "parameters,", at, flush=True)
    try:
        while time.time() < end and not asked and not (args.steps and at["number"] - first >= args.steps):
            t = time.time()
            batch = source()
            waited, left = time.time() - t, (end - t) / 60
            factor = args.rate * min(1.0, (at["number"] - first + 1) / args.warm)
            if args.fall and left < args.fall:
                if not fell:
                    training.keep("plateau.pt")
                    fell = True
                factor = min(factor, args.rate * max(0.0, left / args.fall))
            kind = "long_" if args.stage == "c" and len(batch[1]) < args.batch else ""
            report = training.train(batch, factor)
            at["minutes"] += (time.time() - t) / 60
            means.add(kind, {**report, "waited": waited, "took": time.time() - t})
            if at["number"] % args.every == 0:
                log(**{**at, "minutes": round(at["minutes"], 1)}, **means.take())
            if time.time() - saved > 60 * args.save:
                training.keep()
                saved = time.time()
    finally:
        source.close()
        signal.signal(signal.SIGTERM, before)
    training.keep()
    print(f"ended after {(time.time() - began) / 60:.1f} minutes", flush=True)
    return training


def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("stage", choices=("a", "c"))
    ap.add_argument("--run", required=True)
    ap.add_argument("--until", help="HH:MM of today")
    ap.add_argument("--minutes", type=float)
    ap.add_argument("--steps", type=int, help="at most so many steps in this command")
    ap.add_argument("--fall", type=float, default=0.0, help="minutes at the end over which the rates fall")
    ap.add_argument("--from", dest="start", help="a file of RUN to start from instead of state.pt")
    ap.add_argument("--rate", type=float, default=1.0, help="all rates, against the recipe's")
    ap.add_argument("--fresh", action="store_true", help="forget the optimisers' state")
    ap.add_argument("--preset", choices=PRESETS, default="narrow", help="widths of a model that is new in RUN")
    ap.add_argument("--batch", type=int, default=24)
    ap.add_argument("--vision-rate", type=float, default=1.0, help="of the encoder in stage c, against the rest")
    ap.add_argument("--warm", type=int, default=60, help="steps over which the rates rise")
    ap.add_argument("--every", type=int, default=40, help="steps between two lines of the log")
    ap.add_argument("--save", type=float, default=3.0, help="minutes between two checkpoints")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--workers", type=int, default=1, help="processes that make batches")
    ap.add_argument("--seed", type=int, default=1)
    return ap


if __name__ == "__main__":
    run(parser().parse_args())
