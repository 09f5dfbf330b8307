"""nano-read's model, training and export, with a tiny model; transformers is the reference where it is there."""

import datetime
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="nano-read is trained with torch")
from helpers.nano_read import TINY, small_world  # noqa: E402
from read import export, losses, train  # noqa: E402
from read.batches import arrays  # noqa: E402
from read.cells import cells  # noqa: E402
from read.evaluate import TorchReader, case, figures, inputs, write  # noqa: E402
from read.model import CODE, CONFIG, NEAR, PRESETS, Read, code, heads_of, shift  # noqa: E402
from read.paint import PATCH  # noqa: E402
from read.vocabulary import Vocabulary  # noqa: E402


@pytest.fixture(scope="module")
def world():
    return small_world()


def model_of(seed=0):
    torch.manual_seed(seed)
    v = Vocabulary()
    return Read(dict(TINY), v.base, (len(v) - v.base) // 2).eval(), v


def arguments(folder, stage, *more):
    return train.parser().parse_args(
        [stage, "--run", str(folder), "--batch", "3", "--threads", "1", "--every", "2", *more]
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_has_room_for_the_codes_of_places(preset):
    c = {**CONFIG, **PRESETS[preset]}
    v = Vocabulary()
    model = Read(c, v.base, (len(v) - v.base) // 2)
    assert c["vision_dim"] // c["vision_heads"] >= CODE and c["dim"] // c["heads"] >= CODE
    bits = 4.5 * sum(t.numel() for t in export.tensors(model).values())
    assert bits / 8 < 12e6


def test_codes_of_places_can_be_moved():
    r, c = torch.tensor([3, 9]), torch.tensor([5, 1])
    assert torch.allclose(code(r, c) @ shift(-1, 2).T, code(r - 1, c + 2), atol=1e-5)
    assert code(r, c).shape == (2, CODE)


def test_latents_start_at_the_patches_of_their_cells(world):
    """Before any training: what makes reading learnable within hours"""
    model, _ = model_of()
    held = losses.Cells(TINY["max_patches"], TINY["heads"])
    for n in range(12):
        page, how, picture = world.sample(np.random.default_rng(n), ("line", "lines", "receipt", "table")[n % 4], 0.0)
        x, rows, columns, _ = losses.tensors([a[None] for a in arrays(page, how, picture)])
        index, inside = held.index(rows, columns)
        assert inside.sum() == (rows > 0).sum()  # every patch has its latent
        features = torch.nn.functional.normalize(model.vision_model.embeddings(x, rows, columns), dim=-1)
        _, weights = model.image_to_text_projection(features)
        assert held.attention_loss(weights, index, inside) < 1


def test_patches_start_at_their_neighbours(world):
    """Also where one patch is full of ink and the next one empty"""
    config = {**CONFIG, **PRESETS["narrow"], "vision_layers": 2}
    model = Read(config, 8, 4)
    for n, kind in enumerate(("line", "lines", "receipt", "table")):
        page, how, picture = world.sample(np.random.default_rng(n), kind, 0.0)
        x, rows, columns, _ = losses.tensors([a[None] for a in arrays(page, how, picture)])
        c, layer = int(columns.max()), model.vision_model.encoder.layer[0]
        h = layer.pre_attention_layer_norm(model.vision_model.embeddings(x, rows, columns))
        q, k = (heads_of(p(h), config["vision_heads"])[0] for p in (layer.attention.query, layer.attention.key))
        weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).masked_fill(rows == 0, -1e9).softmax(-1)
        for head, (dy, dx) in zip(weights, NEAR, strict=False):
            place = [(r - 1) * c + b - 1 for r, b in zip(rows[0].tolist(), columns[0].tolist(), strict=True) if r]
            inside = [i for i in place if 0 <= i % c + dx < c and 0 <= i // c + dy < int(rows.max())]
            assert head[inside, [i + dy * c + dx for i in inside]].mean() > 0.5


def test_each_token_has_the_cell_to_look_at():
    v, text = Vocabulary(), "a b"
    lines, found = [((0, 0, 9, 9), text), ((0, 9, 9, 18), "c")], [np.array([5, 6, 7]), np.array([-1])]
    ids, at = losses.padded(v, [lines], 24)[0], losses.looked_at([lines], [found], 24)[0]
    said = [(v.tokens[i], int(a)) for i, a in zip(ids, at, strict=True) if i != 1]
    assert said[:5] == [("<bbox>", 5), ("<x_0>", 5), ("<y_0>", 5), ("<x_9>", 7), ("<y_9>", 7)]
    assert [a for _, a in said[5:10]] == [-1, 5, 6, 7, 7] and all(a == -1 for _, a in said[10:])
    weights = torch.full((1, 2, 25, 40), -50.0)
    for t, a in enumerate(at.tolist()):
        weights[0, :, t, a + 2] = -0.25
    assert float(losses.look_loss([weights], at[None])) == pytest.approx(0.25)
    with pytest.raises(ValueError, match="3 cells"):
        losses.looked_at([lines], [found[:1] * 2], 24)


def test_stages_train_resume_and_fall(world, tmp_path):
    a = train.run(arguments(tmp_path, "a", "--steps", "4"), small_world, TINY)
    assert a.at["pictures"] == a.at["seen"] == 12 and a.at["number"] == 4
    kept = {k: p.clone() for k, p in a.net.state_dict().items()}
    b = train.run(arguments(tmp_path, "a", "--steps", "2"), small_world)
    assert b.at["number"] == 6 and b.config == TINY
    moved = {k for k, p in b.net.state_dict().items() if not torch.equal(p, kept[k])}
    assert "read.vision_model.embeddings.patch_projection.weight" in moved
    assert not any("text_model" in k or "projection.x_attn" in k for k in moved)
    c = train.run(arguments(tmp_path, "c", "--steps", "3", "--minutes", "5", "--fall", "10"), small_world)
    assert c.at["stage"] == "c" and c.at["number"] == 3 and c.at["pictures"] == 27
    assert (tmp_path / "plateau.pt").exists()
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [r["stage"] for r in rows] == ["a", "a", "a", "c"] and all(np.isfinite(r["loss"]) for r in rows)
    with pytest.raises(SystemExit, match="is not there"):
        train.run(arguments(tmp_path, "c", "--from", "gone.pt"), small_world)


def test_the_deadline_is_the_earlier_one_and_never_past(tmp_path, monkeypatch):
    class Noon(datetime.datetime):
        @classmethod
        def now(cls):
            return cls(2026, 1, 1, 12, 0)

    monkeypatch.setattr(train.datetime, "datetime", Noon)
    monkeypatch.setattr(train.time, "time", lambda: 1000.0)
    assert train.deadline(arguments(tmp_path, "a", "--until", "12:30", "--minutes", "40")) == 2800
    assert train.deadline(arguments(tmp_path, "a", "--until", "12:30", "--minutes", "10")) == 1600
    assert train.deadline(arguments(tmp_path, "a")) == float("inf")
    with pytest.raises(SystemExit, match="11:59 is past: it is 12:00"):
        train.deadline(arguments(tmp_path, "a", "--until", "11:59"))


def test_losses_fall_on_one_page(world):
    torch.manual_seed(0)
    v = Vocabulary()
    net = train.Net(dict(TINY), v)
    page, how, picture = world.sample(np.random.default_rng(4), "line", 0.0, 1)
    one = [a[None] for a in arrays(page, how, picture)]
    text = page.segments[0].text[:4]
    batch = (one, [[((10, 10, 100, 40), text)]], [[np.arange(len(text)) + 40]])
    rates, step = train.Rates(net, {}), train.StageC(v, net.read.config)
    first = None
    for n in range(40):
        loss, report = step(net, batch, n)
        loss.backward()
        rates.step(0.5)
        first = first or {k: float(x.detach()) for k, x in report.items()}
    assert all(report[k] < 0.6 * first[k] for k in ("words", "places", "characters", "cell", "look")), (first, report)
    assert report["t_pixels"] < first["t_pixels"]


def test_patches_of_training_are_those_of_the_published_processor(world):
    for n in range(4):
        page, how, picture = world.sample(np.random.default_rng((8, n)), "line", 1.0)
        x, rows, columns, _ = losses.tensors([a[None] for a in arrays(page, how, picture)])
        exact, r, c = inputs(picture)
        assert torch.equal(rows, r) and torch.equal(columns, c)
        assert (x - exact).abs().max() < 0.05  # training resizes whole numbers


def test_writing_with_a_cache_is_the_forward_pass(world):
    model, v = model_of(1)
    picture, _ = case(world, "clean", 0)
    ids, sure = write(model, v, picture, most=12)
    with torch.no_grad():
        _, latents, _ = model.image(*inputs(picture))
        table = model.embedding_table()
        table[1] = 0
        log_p = (model.text(latents, table, v.before("ocr"), torch.tensor([ids]))[0] @ table.T).log_softmax(-1)[0]
    assert log_p.argmax(-1)[: len(ids)].tolist() == ids and len(ids) == 12 and sure < 0
    assert figures(TorchReader(model, v), [case(world, "clean", 1)])["cer"] > 0


def test_the_export_is_what_transformers_reads(world, tmp_path):
    pytest.importorskip("transformers", reason="the reference of the export")
    from read.check_export import check

    model, v = model_of(2)
    with torch.no_grad():  # answers of untrained weights are about nothing; vary them all the same
        for p in model.parameters():
            p.add_(0.02 * torch.randn_like(p))
        model.text_model.model.embed_tokens.weight[1] = 0
    export.write(str(tmp_path / "out"), model, v)
    with torch.no_grad():
        worst, wrong = check(str(tmp_path / "out"), model, v, world)
    assert worst < 1e-5 and not wrong
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (
        settings["latent_query_num"] == len(cells())
        and settings["vision_config"]["patch_embed_hidden_size"] == 3 * PATCH**2
    )


def test_what_4_bits_cost_is_in_points():
    from read.ship import cost

    said = {
        "f32": {"clean": {"cer": 0.02, "exact": 0.8, "boxes": 0.9}, "none": {"silent": 0.95}},
        "q4_k_m": {"clean": {"cer": 0.025, "exact": 0.79, "boxes": 0.91}, "none": {"silent": 0.9}},
    }
    lost = cost(said)
    assert lost["clean"] == pytest.approx({"cer": 0.5, "exact": 1.0, "boxes": -1.0})
    assert lost["none"] == pytest.approx({"silent": 5.0})
