"""Muon for the hidden matrices, AdamW for everything else, under one schedule.

Muon takes a step whose singular values are all about one: momentum, then five Newton-Schulz steps towards the
nearest orthogonal matrix (Jordan et al. 2024). On the ViT it needed about half of AdamW's samples.
The schedule is a warm-up, a plateau and a linear fall to nothing, so that a run can be prolonged or ended early
by giving another total of steps when it is resumed.
"""

import torch


class Muon(torch.optim.Optimizer):
    def __init__(self, params, lr=0.02, momentum=0.95, weight_decay=0.01):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            alike = {}
            for p in group["params"]:
                if p.grad is not None:
                    m = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    m.lerp_(p.grad, 1 - group["momentum"])
                    # on a GPU matrices of one shape go through the iteration together: few large kernels
                    key = tuple(p.shape) if p.is_cuda else p
                    alike.setdefault(key, []).append((p, p.grad.lerp(m, group["momentum"])))
            for same in alike.values():
                steps = orthogonal(torch.stack([g for _, g in same])) if len(same) > 1 else [orthogonal(same[0][1])]
                for (p, _), step in zip(same, steps, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(step, alpha=-group["lr"] * max(1.0, p.shape[0] / p.shape[1]) ** 0.5)


def orthogonal(g, steps=5):
    """The matrix (or matrices, along a first axis) with g's singular vectors and singular values near one; bfloat16
    is exact enough for a direction, and slower than float32 on most CPUs"""
    tall = g.shape[-2] > g.shape[-1]
    x = g.mT if tall else g
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    x = x.bfloat16() if x.is_cuda else x
    multiply_add = torch.addmm if x.ndim == 2 else torch.baddbmm
    for _ in range(steps):
        a = x @ x.mT
        x = multiply_add(x, multiply_add(a, a, a, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return (x.mT if tall else x).to(g.dtype)


def hidden_matrices(named):
    """Split (name, parameter) pairs: matrices inside layers and the connector, and the rest"""
    matrices, rest = [], []
    for name, p in named:
        inner = p.ndim == 2 and (".layers." in name or "x_attn" in name or name.endswith("projection.dense.weight"))
        (matrices if inner else rest).append(p)
    return matrices, rest


class Optimiser:
    """Groups of (named parameters, factor on the learning rates) stepped together."""

    def __init__(self, groups, muon_lr=0.02, adam_lr=2e-3, clip=2.0):
        self.clip = clip
        muon, adam = [], []
        for named, factor in groups:
            matrices, rest = hidden_matrices(named)
            muon.append({"params": matrices, "lr": muon_lr * factor, "peak": muon_lr * factor})
            adam.append({"params": rest, "lr": adam_lr * factor, "peak": adam_lr * factor})
        self.parts = [Muon([g for g in muon if g["params"]])] if any(g["params"] for g in muon) else []
        self.parts.append(
            torch.optim.AdamW([g for g in adam if g["params"]], betas=(0.9, 0.98), weight_decay=0.02, fused=True)
        )
        self.params = [p for part in self.parts for g in part.param_groups for p in g["params"]]

    def step(self, factor):
        """Clip, step with `factor` times the peak rates, clear the gradients"""
        torch.nn.utils.clip_grad_norm_(self.params, self.clip)
        for part in self.parts:
            for g in part.param_groups:
                g["lr"] = g["peak"] * factor
            part.step()
            part.zero_grad(set_to_none=True)

    def state_dict(self):
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states):
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)


def schedule(step, total, fall, warm=100):
    """Share of the peak rate at `step`: rises over `warm` steps, falls to nothing over the last `fall`"""
    return min(1.0, (step + 1) / warm, max(0.0, (total - step) / max(1, fall)))
