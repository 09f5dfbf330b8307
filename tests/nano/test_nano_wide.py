"""The wider world of nano: class map, scenes from seeds, boxes, both renderers, texts. A toy archive, no network."""

import io
import random
import re
import tarfile

import numpy as np
import pytest
from helpers.nano_toy import write_toy
from PIL import Image
from wide import archive, cutouts, drawings, grounds, language, measuring, nouns, pack, paint, sources, spec


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return archive.World(write_toy(tmp_path_factory.mktemp("toy") / "world.zip"))


@pytest.fixture(scope="module")
def pools(world):
    return spec.Pools(world)


# ------------------------------------------------------------------------------------------ sources
def test_nouns_are_many_named_once_and_not_shapes():
    names = [n.name for n in nouns.nouns()]
    assert len(names) >= 160
    assert len(set(names)) == len(names)
    assert not set(names) & set(language.shapes.SHAPES)
    assert all(n.emoji or n.icons for n in nouns.nouns())


def test_every_source_says_licence_credit_and_tier():
    for s in sources.SOURCES:
        assert s.licence and s.credit and s.tier in sources.TIERS, s.package
        assert s.family or s.use not in ("icons", "emoji3d"), s.package
        assert s.version or s.registry == "deb", f"{s.package} is not pinned"
    open_icons = [s for s in sources.chosen("open") if s.use == "icons"]
    assert not any("SA" in s.licence or "GPL" in s.licence for s in open_icons)
    assert len(sources.chosen("copyleft")) > len(sources.chosen("open"))


def test_photographs_for_measuring_are_listed_once_and_have_a_source():
    listed = measuring.listed()
    assert set(listed) == {s.package for s in sources.SOURCES if s.use == "measuring"}
    paths = [(package, path) for package, found in listed.items() for path in found]
    assert len(set(paths)) == len(paths) >= 170
    assert all(path.endswith((".jpg", ".png")) for _, path in paths)
    trained_on = {s.package for s in sources.SOURCES if s.use == "photos"}
    assert not trained_on & set(listed)


def test_a_photograph_that_its_package_lacks_is_an_error(tmp_path, monkeypatch):
    source = sources.Source("gallery", "1.0", "npm", "measuring", "MIT", "nobody")
    monkeypatch.setattr(sources, "SOURCES", (source,))
    (tmp_path / "npm").mkdir()
    with tarfile.open(tmp_path / "npm" / "gallery-1.0.tgz", "w:gz") as t:
        entry = tarfile.TarInfo("package/img/sea.jpg")
        entry.size = 3
        t.addfile(entry, io.BytesIO(b"sea"))
    monkeypatch.setattr(measuring, "listed", lambda: {"gallery": ["img/sea.jpg"]})
    found = list(measuring.photographs(tmp_path, "open", [("other", "/a/hill.jpg")]))
    assert found[0] == ("other:hill.jpg", "/a/hill.jpg")
    assert (found[1][0], found[1][1].read()) == ("gallery:img/sea.jpg", b"sea")
    monkeypatch.setattr(measuring, "listed", lambda: {"gallery": ["img/lake.jpg"]})
    with pytest.raises(ValueError, match="expected the photograph img/lake"):
        list(measuring.photographs(tmp_path, "open", []))


def test_added_backgrounds_are_listed_once_have_a_source_and_are_not_measured_on():
    listed = measuring.listed("grounds.txt")
    use = {s.package: s.use for s in sources.chosen("open")}
    assert set(listed) <= set(use)
    assert {package for package, kind in use.items() if kind == "grounds"} <= set(listed)
    paths = [(package, path) for package, found in listed.items() for path in found]
    assert len(set(paths)) == len(paths) >= 150
    assert not set(paths) & {(package, path) for package, found in measuring.listed().items() for path in found}


def _gallery(folder, name, size):
    """A package "gallery" with one photograph `name` of `size`, all of one colour but for a dark left half"""
    picture = Image.new("RGB", size, (200, 120, 40))
    picture.paste((20, 20, 20), (0, 0, size[0] // 2, size[1]))
    data = io.BytesIO()
    picture.save(data, "PNG")
    (folder / "npm").mkdir()
    with tarfile.open(folder / "npm" / "gallery-1.0.tgz", "w:gz") as t:
        entry = tarfile.TarInfo(f"package/{name}")
        entry.size = len(data.getvalue())
        t.addfile(entry, io.BytesIO(data.getvalue()))


@pytest.mark.parametrize("size", [(60, 20), (20, 20), (30, 24)])
def test_an_added_background_gives_two_views(tmp_path, monkeypatch, size):
    _gallery(tmp_path, "img/sea.png", size)
    monkeypatch.setattr(sources, "SOURCES", (sources.Source("gallery", "1.0", "npm", "grounds", "MIT", "nobody"),))
    monkeypatch.setattr(measuring, "listed", lambda name: {"gallery": ["img/sea.png"]})
    made = list(pack.added_grounds(tmp_path, "open"))
    assert [(key, view.size) for key, view in made] == [("gallery:img/sea.png", (pack.GROUND,) * 2)] * grounds.VIEWS
    assert made[0][1].tobytes() != made[1][1].tobytes()
    again = [view.tobytes() for _, view in pack.added_grounds(tmp_path, "open")]
    assert again == [view.tobytes() for _, view in made]


def test_an_added_background_of_no_source_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "listed", lambda name: {"gallery": ["img/sea.png"]})
    with pytest.raises(ValueError, match="gallery, which is no source"):
        list(pack.added_grounds(tmp_path, "open"))
    monkeypatch.setattr(sources, "SOURCES", (sources.Source("gallery", "1.0", "npm", "grounds", "MIT", "nobody"),))
    with pytest.raises(ValueError, match="expected the package gallery"):
        list(pack.added_grounds(tmp_path, "open"))


def test_designs_that_look_alike_are_one_family():
    family = {s.package.rpartition("/")[2]: s.family for s in sources.SOURCES}
    assert family["noto"] == family["noto-v1"]
    assert family["emojione"] == family["emojione-v1"] == family["emojione-monotone"]
    assert family["fluent-emoji"] == family["fluent-emoji-flat"] == family["fluent-emoji-3d"]


def test_trim_keeps_what_is_visible_and_refuses_nothing():
    image = Image.new("RGBA", (400, 400))
    image.paste((255, 0, 0, 255), (100, 50, 150, 250))
    out = cutouts.trim(image)
    assert out.size == (cutouts.SIDE // 4, cutouts.SIDE)
    assert cutouts.trim(Image.new("RGBA", (50, 50))) is None


def test_every_drawing_is_of_a_noun_and_of_a_package_and_named_once():
    rows = drawings.rows()
    assert len(rows) > 900 and all(len(r) == 3 for r in rows)
    packages = {s.package.rpartition("/")[2] for s in sources.SOURCES if s.use in ("drawings", "icons")}
    assert {r[0] for r in rows} <= packages
    assert {r[2] for r in rows} <= {n.name for n in nouns.nouns()}
    assert len({r[:2] for r in rows}) == len(rows)  # a picture shows one noun
    assert not {f"{package}:{name}" for package, name, _ in rows} & cutouts.pruned()


def test_every_source_of_drawings_has_some():
    named = {r[0] for r in drawings.rows()}
    assert {s.package.rpartition("/")[2] for s in sources.SOURCES if s.use == "drawings"} <= named


def test_white_joined_to_the_edge_becomes_transparent():
    image = Image.new("RGBA", (60, 60), (255, 255, 255, 255))
    image.paste((200, 0, 0, 255), (20, 20, 40, 40))
    image.paste((255, 255, 255, 255), (28, 28, 32, 32))  # white inside the thing stays
    alpha = np.asarray(drawings.without_white(image))[..., 3]
    assert not alpha[:20].any() and not alpha[:, 40:].any()
    assert alpha[21:39, 21:39].all()


def test_a_picture_that_fills_its_frame_or_has_alpha_is_left_as_it_is():
    full = Image.new("RGBA", (60, 60), (10, 90, 10, 255))
    full.paste((255, 255, 255, 255), (0, 0, 60, 10))
    assert drawings.without_white(full) is full
    cut = Image.new("RGBA", (60, 60))
    cut.paste((255, 255, 255, 255), (20, 20, 40, 40))
    assert drawings.without_white(cut) is cut


# ------------------------------------------------------------------------------------------ scenes
def test_a_seed_gives_one_scene(pools, world):
    a, b = (spec.sample(pools, 77) for _ in range(2))
    assert np.array_equal(spec.rows_of(a, world, 96), spec.rows_of(b, world, 96))
    assert a.objects == b.objects
    assert spec.sample(pools, 78).objects != a.objects


def test_scenes_keep_to_their_split(pools, world):
    for split in ("train", "test"):
        for seed in range(150):
            s = spec.sample(pools, seed, split)
            assert len(s.objects) <= spec.MAX_OBJECTS and len(s.layers) <= spec.MAX_LAYERS
            for o in s.objects:
                assert world.sprites[o.sprite]["split"] == split
                assert world.sprites[o.sprite]["name"] == o.name
                assert world.sprites[o.sprite]["kind"] == o.kind != "unknown"
            assert world.grounds[s.ground]["split"] == split or s.kind != "photo"


def test_counts_are_as_asked_and_negatives_occur(pools):
    counts = [len(spec.sample(pools, seed).objects) for seed in range(400)]
    assert 15 < counts.count(0) < 90
    assert max(counts) == 5
    assert all(not spec.sample(pools, seed, count=0).objects for seed in range(30))


def test_a_box_is_the_extent_of_what_is_painted(pools, world):
    checked = 0
    for seed in range(60):
        s = spec.sample(pools, seed)
        for i, o in enumerate(s.objects):
            s.layers, kept = [la for la in s.layers if la.object == i + 1], s.layers
            _, owner = paint.paint_arrays(s, world, 192)
            s.layers = kept
            rows, columns = np.nonzero(owner == i + 1)
            if world.sprites[o.sprite]["kind"] == "shape" and len(rows) < 200:
                continue
            found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 192
            assert np.abs(found - o.box).max() < 0.025, (seed, o)
            assert min(o.box) >= 0 and max(o.box) <= 1
            checked += 1
    assert checked > 80


def test_tinted_things_stand_out(pools, world):
    for seed in range(120):
        s = spec.sample(pools, seed)
        for o in s.objects:
            assert o.color is not None or not world.sprites[o.sprite]["tint"]
            if o.color and s.kind != "photo":
                assert o.color in spec.COLOR_NAMES


def test_noise_is_fixed():
    n = paint.noise(5, 64)
    assert abs(n.mean()) < 0.05 and n.min() >= -1 and n.max() <= 1 and n.std() > 0.5
    assert not np.array_equal(n, paint.noise(6, 64))


def test_both_renderers_paint_the_same(pools, world):
    torch = pytest.importorskip("torch", reason="the device renderer needs torch")
    from wide import compose

    torch.set_num_threads(1)
    scenes = [spec.sample(pools, seed) for seed in range(12)]
    scenes[3].layers[-1].warp = (0.07, 1.2, 0.3, 0.06, 0.7, 0.9)
    composer = compose.Composer(world, "cpu", picture=96, supersample=1)
    pixels, owner = composer.pictures(spec.arrays(scenes, world, 96))
    for s, mine, mine_owner in zip(scenes, pixels.numpy(), owner.numpy(), strict=True):
        theirs, their_owner = paint.paint_arrays(s, world, 96)
        assert np.abs(mine.transpose(1, 2, 0) - theirs).max() < 2e-3
        assert (mine_owner != their_owner).mean() < 1e-3
    big = compose.Composer(world, "cpu", picture=96)  # painted at 192, then shrunk as the runtime shrinks
    pixels, _ = big.pictures(spec.arrays(scenes, world, 192))
    for s, mine in zip(scenes, pixels.numpy(), strict=True):
        theirs = np.asarray(paint.paint(s, world, 192).resize((96, 96), Image.BICUBIC), np.float32)
        assert np.abs(mine.transpose(1, 2, 0) * 255 - theirs).max() <= 2


# ------------------------------------------------------------------------------------------ texts
TAGGED = re.compile(
    r"(<phrase>[^<]+</phrase><object>(<patch_index_\d{4}>|</delimiter_of_multi_objects/>)+</object>|[^<])*"
)


def test_texts_are_well_formed_and_true(pools, world):
    names = language.known_names(world)
    rng = random.Random(3)
    kinds = set()
    for seed in range(250):
        s = spec.sample(pools, seed)
        for prompt, target in (language.caption(s), language.detailed(s)):
            assert prompt.startswith("<grounding>")
            assert TAGGED.fullmatch(target), target
            assert target.count("<object>") == len(s.objects)
        prompt, target = language.locate(s, rng, names)
        assert (target == "") == (not s.objects or target == "")
        for kind in language.QUESTIONS:
            made = language.ask(s, rng, names, kind, style=False)
            if made:
                kinds.add(kind)
                assert made[0].startswith("Question: ") and made[0].endswith("? Answer:")
                assert made[1].startswith(" ") and made[1].strip()
    assert kinds == set(language.QUESTIONS)
    for _ in range(40):
        prompt, target = language.fact(rng, names)
        assert target.startswith(" ")


def test_answers_count_what_is_there(pools, world):
    names = language.known_names(world)
    rng = random.Random(4)
    for seed in range(200):
        s = spec.sample(pools, seed)
        question, answer = language.ask(s, rng, names, "count_kind", style=False)
        said = re.match(r"Question: How many (.+?) (are|can)", question)[1]
        true = sum(language.plural(o.name) == said for o in s.objects if o.kind in ("noun", "shape"))
        assert answer.strip() == language.NUMBERS[true], (question, s.objects)


def test_words_about_words():
    assert language.with_article("apple") == "an apple"
    assert language.with_article("unicorn") == "a unicorn"
    assert language.with_article("umbrella") == "an umbrella"
    assert language.with_article("glasses") == "glasses"
    assert [language.plural(n) for n in ("fox", "tomato", "knife", "berry", "monkey", "sheep", "Christmas tree")] == [
        "foxes", "tomatoes", "knives", "berries", "monkeys", "sheep", "Christmas trees",
    ]  # fmt: skip


def test_nothing_is_said_of_nothing(pools, world):
    s = spec.sample(pools, 1, count=0)
    rng = random.Random(1)
    assert language.caption(s)[1] == language.NOTHING
    assert language.plain(s)[1] == language.NOTHING
    assert language.detailed(s)[1] == language.SEE_NOTHING
    assert language.locate(s, rng, language.known_names(world))[1] == ""
    assert language.describe(s, rng)[1] == language.NOTHING
