"""Scenes with one object, from the seeds of nano's world."""

from world import COLORS, SHAPES, render, sample_scene

SIZE = 224  # they are painted at this size; the model's own preprocessing squashes them


def singles(seed):
    """Scenes with one object, from this seed on"""
    while True:
        scene = sample_scene(seed)
        if len(scene.objects) == 1:
            yield scene
        seed += 1


def kind_of(scene):
    """(shape, colour) of the one object"""
    return scene.objects[0].shape, scene.objects[0].color


def paint(scene):
    """The scene as a picture"""
    return render(scene, SIZE)


def index_by_kind(kinds):
    """Kinds -> {(shape, colour): numbers of the pictures of that kind}"""
    found = {}
    for n, (shape, color) in enumerate(kinds):
        found.setdefault((shape, color), []).append(n)
    return found


def every_kind(seed, least, most):
    """Scenes with one object, from this seed on, until each kind has `least`; of a kind the first `most`"""
    scenes, counts = [], {(s, c): 0 for s in range(len(SHAPES)) for c in range(len(COLORS))}
    for scene in singles(seed):
        kind = kind_of(scene)
        counts[kind] += 1
        if counts[kind] <= most:
            scenes.append(scene)
        if min(counts.values()) >= least:
            return scenes
