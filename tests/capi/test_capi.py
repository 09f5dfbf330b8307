"""The C interface: header, handles, sized structs and errors."""

import ctypes
import re
import shutil
import subprocess
import tomllib
from ctypes import byref, c_size_t, c_void_p

import numpy as np
import pytest
from helpers import capi
from helpers.api_model import folder, picture, tiny_file
from helpers.capi import ROOT, CError, call, lib, make, texts

from kosmos_edge import _core, load

HEADER = (ROOT / "include" / "kosmos.h").read_text(encoding="utf-8")
FUNCTIONS = re.findall(r"KOSMOS_API [^;]*?\b(kosmos_\w+)\(", HEADER)
BAD_HANDLES = [None, 1, 2, 0xDEADBEEF, 2**64 - 1]


@pytest.fixture(scope="module")
def model():
    handle = capi.load(tiny_file(), threads=1)
    yield handle
    lib().kosmos_model_free(handle)


@pytest.fixture(scope="module")
def image(model):
    handle = capi.encode(model, picture())
    yield handle
    lib().kosmos_image_free(handle)


def short(**values) -> capi.Options:
    return capi.Options(**{"max_tokens": 4} | values)


def refused(name: str, *arguments) -> str:
    with pytest.raises(CError) as error:
        call(name, *arguments)
    assert error.value.code == capi.INVALID
    return error.value.message


# ---- header


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")
def test_the_header_is_plain_c99_and_lays_structs_out_as_the_tests_do(tmp_path):
    checks = []
    for name, struct in capi.STRUCTS.items():
        checks.append((f"sizeof(kosmos_{name})", ctypes.sizeof(struct)))
        checks += [(f"offsetof(kosmos_{name}, {f[0]})", getattr(struct, f[0]).offset) for f in struct._fields_]
    lines = [f"typedef char check{i}[({left} == {right}) ? 1 : -1];" for i, (left, right) in enumerate(checks)]
    source = "#include <kosmos.h>\n" + "\n".join(lines) + "\nkosmos_options o = KOSMOS_INIT(kosmos_options);\n"
    (tmp_path / "layout.c").write_text(source)
    flags = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{ROOT / 'include'}"]
    out = subprocess.run(["cc", *flags, str(tmp_path / "layout.c")], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert len(set(re.findall(r"typedef struct kosmos_\w+ \{.*?\} (kosmos_\w+);", HEADER, re.S))) == len(capi.STRUCTS)


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler here")
def test_the_header_is_c_plus_plus_too(tmp_path):
    (tmp_path / "use.cpp").write_text("#include <kosmos.h>\nint main() { return kosmos_abi_version(); }\n")
    for standard in ("c++98", "c++20"):
        flags = [f"-std={standard}", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{ROOT / 'include'}"]
        out = subprocess.run(["c++", *flags, str(tmp_path / "use.cpp")], capture_output=True, text=True)
        assert out.returncode == 0, out.stderr


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert lib().kosmos_version().decode() == project["version"]
    assert f'#define KOSMOS_VERSION "{project["version"]}"' in HEADER
    assert f"#define KOSMOS_ABI_VERSION {lib().kosmos_abi_version()} " in HEADER


def test_every_function_of_the_header_is_there():
    assert len(FUNCTIONS) == len(set(FUNCTIONS)) == 32
    for name in FUNCTIONS:
        assert getattr(lib(), name)


def test_status_names_are_those_of_the_header():
    known = {int(number): name for name, number in re.findall(r"(KOSMOS_OK|KOSMOS_ERROR_\w+) = (\d+)", HEADER)}
    assert len(known) == 12
    for number in range(-3, 20):
        assert lib().kosmos_status_name(number).decode() == known.get(number, "unknown status")


# ---- handles


def calls_with(model, image, result, ranking, cancel):
    """Every fallible function with these handles, the other arguments right."""
    o, info = byref(short()), byref(capi.ImageInfo())
    pixels = np.zeros((4, 4, 3), np.uint8)
    given = byref(capi.Picture(pixels=pixels.ctypes.data, width=4, height=4))
    region = byref(capi.Region(x1=0, y1=0, x2=4, y2=4))
    segments = (capi.Segment * 1)(capi.Segment(kind=3, image=image))
    return {
        "model_get": (model, byref(capi.ModelInfo())),
        "image_encode": (model, given, None, byref(c_void_p())),
        "image_get": (image, info),
        "caption": (model, image, o, byref(c_void_p())),
        "ground": (model, image, None, o, byref(c_void_p())),
        "locate": (model, image, b"a dog", o, byref(c_void_p())),
        "describe": (model, image, region, o, byref(c_void_p())),
        "ask": (model, image, b"What?", o, byref(c_void_p())),
        "read": (model, image, o, byref(c_void_p())),
        "generate": (model, segments, c_size_t(1), o, byref(c_void_p())),
        "score": (model, image, texts("a"), c_size_t(1), None, byref(c_void_p())),
        "result_get": (result, byref(capi.ResultInfo())),
        "result_get_entity": (result, c_size_t(0), byref(capi.Entity())),
        "ranking_get": (ranking, c_size_t(0), byref(capi.ScoreInfo())),
        "ranking_get_info": (ranking, byref(capi.RankingInfo())),
        "cancel_set": (cancel,),
    }


@pytest.mark.parametrize("bad", BAD_HANDLES, ids=str)
def test_handles_that_never_were_are_refused_by_every_function(bad):
    handle = c_void_p(bad)
    for name, arguments in calls_with(*[handle] * 5).items():
        assert "handle" in refused(name, *arguments)
    for kind in ("model", "image", "result", "ranking", "cancel", "error"):
        getattr(lib(), f"kosmos_{kind}_free")(handle)
    assert lib().kosmos_ranking_count(handle) == 0
    if bad != 2:  # the error of no memory at all
        assert lib().kosmos_error_code(handle) == capi.OK and lib().kosmos_error_message(handle) == b""


def test_freed_handles_and_those_of_another_type_are_refused(model, image):
    result = make("caption", model, image, byref(short()))
    ranking = make("score", model, image, texts("a", "b"), c_size_t(2), None)
    cancel = make("cancel_create")
    for name, arguments in calls_with(image, model, cancel, result, ranking).items():  # all shuffled
        assert "not a live handle" in refused(name, *arguments)
    own_model = capi.load(tiny_file(), threads=1)
    own_image = capi.encode(own_model, picture())
    for kind, handle in {
        "model": own_model, "image": own_image, "result": result, "ranking": ranking, "cancel": cancel,
    }.items():  # fmt: skip
        for _ in range(3):
            getattr(lib(), f"kosmos_{kind}_free")(handle)
    for name, arguments in calls_with(own_model, own_image, result, ranking, cancel).items():
        assert "not a live handle" in refused(name, *arguments)


def test_handles_are_not_given_out_again_soon():
    seen = set()
    for _ in range(2000):
        handle = make("cancel_create")
        assert handle.value not in seen
        seen.add(handle.value)
        lib().kosmos_cancel_free(handle)


def test_an_image_belongs_to_its_model(model):
    other = capi.load(tiny_file(), threads=1)
    image = capi.encode(other, picture())
    assert "only with the model that encoded it" in refused("caption", model, image, None, byref(c_void_p()))
    lib().kosmos_model_free(other)
    assert "only with the model that encoded it" in refused("caption", model, image, None, byref(c_void_p()))
    lib().kosmos_image_free(image)


def test_a_result_outlives_its_model():
    own = capi.load(tiny_file(), threads=1)
    image = capi.encode(own, picture())
    result = make("caption", own, image, byref(short()))
    lib().kosmos_model_free(own)
    lib().kosmos_image_free(image)
    assert len(capi.read(result)["ids"]) >= 1


# ---- missing places and structs


def test_null_places_are_refused(model, image):
    assert "expected a place" in refused("model_load", b"x", None, None)
    assert "expected a place" in refused("caption", model, image, None, None)
    assert "expected a place" in refused("cancel_create", None)
    assert "NULL" in refused("model_load", None, None, byref(c_void_p()))
    assert "NULL" in refused("model_get", model, None)
    assert "NULL" in refused("image_encode", model, None, None, byref(c_void_p()))
    assert "NULL" in refused("describe", model, image, None, None, byref(c_void_p()))
    for verb in ("locate", "ask"):
        assert "NULL" in refused(verb, model, image, None, None, byref(c_void_p()))
    assert "NULL" in refused("generate", model, None, c_size_t(1), None, byref(c_void_p()))
    assert "NULL" in refused("score", model, image, None, c_size_t(1), None, byref(c_void_p()))
    assert lib().kosmos_caption(model, image, None, None, None) == capi.INVALID  # nobody wants the error either


# ---- sized structs


@pytest.mark.parametrize("size", [0, 1, 4, 7, 12, 4104, 2**63, 2**64 - 1])
def test_impossible_struct_sizes_are_refused(model, image, size):
    options, info = short(), capi.ModelInfo()
    options.struct_size = info.struct_size = size
    assert "struct_size" in refused("caption", model, image, byref(options), byref(c_void_p()))
    assert "struct_size" in refused("model_get", model, byref(info))


def test_a_program_of_an_older_header_has_the_defaults_for_what_it_does_not_know(model, image):
    options = short(temperature=50.0, seed=7)  # both behind the fields that this program knows
    options.struct_size = capi.Options.temperature.offset
    ids = capi.read(make("caption", model, image, byref(options)))["ids"]
    assert ids == capi.read(make("caption", model, image, byref(short())))["ids"]
    options.struct_size = ctypes.sizeof(options)
    assert ids != capi.read(make("caption", model, image, byref(options)))["ids"]


def test_only_what_the_caller_knows_is_written(model):
    info = capi.ModelInfo(threads=-7, file_bytes=99)
    info.struct_size = capi.ModelInfo.threads.offset
    call("model_get", model, byref(info))
    assert info.device == b"cpu" and info.threads == -7 and info.file_bytes == 99
    assert info.struct_size == capi.ModelInfo.threads.offset


def test_a_program_of_a_newer_header_works_as_long_as_new_fields_are_zero(model, image):
    class Newer(ctypes.Structure):
        _fields_ = [("old", capi.Options), ("shiny", ctypes.c_int64)]

    class NewerInfo(ctypes.Structure):
        _fields_ = [("old", capi.ImageInfo), ("shiny", ctypes.c_int64)]

    options = Newer(short())
    options.old.struct_size = ctypes.sizeof(Newer)
    assert capi.read(make("caption", model, image, byref(options)))["ids"]
    options.shiny = 1 << 40
    message = refused("caption", model, image, byref(options), byref(c_void_p()))
    assert "does not know" in message and lib().kosmos_version().decode() in message
    info = NewerInfo(shiny=5)
    info.old.struct_size = ctypes.sizeof(NewerInfo)
    call("image_get", image, byref(info))
    assert (info.old.width, info.old.height, info.shiny) == (100, 80, 0)


# ---- loading


def test_what_a_model_says(model):
    info = capi.ModelInfo()
    call("model_get", model, byref(info))
    assert (info.device, info.threads, info.location_bins) == (b"cpu", 1, 32)
    assert info.isa and info.isa in info.description and info.notice == b""
    assert info.file_bytes == tiny_file().stat().st_size and info.context_length > info.image_tokens > 0
    same = _core.model_info(str(tiny_file()))
    assert [info.tasks[i].decode() for i in range(info.task_count)] == same["tasks"]
    assert (info.architecture.decode(), info.preprocessing.decode()) == (same["architecture"], same["preprocessing"])


@pytest.mark.parametrize("kv_type", [None, "f16", "q8_0"])
def test_how_keys_and_values_are_kept(kv_type):
    handle = capi.load(tiny_file(), threads=1, **({} if kv_type is None else {"kv_type": kv_type.encode()}))
    image = capi.encode(handle, picture())
    info = capi.ModelInfo()
    call("model_get", handle, byref(info))
    found = capi.read(make("caption", handle, image, byref(short())))
    lib().kosmos_image_free(image)
    lib().kosmos_model_free(handle)
    with load(tiny_file(), threads=1, kv_type=kv_type or "f16") as python:
        assert (info.kv_type.decode(), info.kv_token_bytes) == (python.kv_type, python.kv_bytes_per_token)
        assert found["ids"] == python.caption(picture(), max_tokens=4).token_ids


def test_errors_of_loading_are_typed(tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(tiny_file().read_bytes()[:-1])
    cases = [
        ((tmp_path / "missing.gguf",), {}, capi.NOT_FOUND),
        ((broken,), {}, capi.CORRUPT),
        ((tmp_path,), {}, capi.IO),
        ((tiny_file(),), {"device": b"cuda"}, capi.DEVICE),
        ((tiny_file(),), {"device": b"toaster"}, capi.INVALID),
        ((tiny_file(),), {"isa": b"abacus"}, capi.DEVICE),
        ((tiny_file(),), {"threads": -1}, capi.INVALID),
        ((tiny_file(),), {"threads": 1025}, capi.INVALID),
        ((tiny_file(),), {"copy": 2}, capi.INVALID),
        ((tiny_file(),), {"kv_type": b"f32"}, capi.INVALID),
        ((tiny_file(),), {"kv_type": b""}, capi.INVALID),
        ((tiny_file(),), {"kv_type": b"q8_0\xff"}, capi.INVALID),
        ((tiny_file(),), {"cancel": 77}, capi.INVALID),
    ]
    for arguments, options, code in cases:
        with pytest.raises(CError) as error:
            capi.load(*arguments, **options)
        assert error.value.code == code, (arguments, options, error.value)
        assert error.value.message


@pytest.mark.parametrize("name", ["模型.gguf", "модель 🦔.gguf", "a" * 200 + ".gguf", "עברית.gguf"])
def test_paths_are_utf8(name):
    path = folder() / name
    shutil.copyfile(tiny_file(), path)
    try:
        handle = capi.load(path, threads=1, copy=1)
    finally:
        path.unlink()
    lib().kosmos_model_free(handle)


def test_messages_are_utf8_whatever_the_path():
    with pytest.raises(CError, match="no such file") as error:
        make("model_load", b"/nowhere/\xff\xfe.gguf", None)
    assert "�" in error.value.message


# ---- pictures


def embedding_of(model, array, **fields_) -> list[int]:
    """The ids that an image leads to, which tell pictures apart."""
    height, width = array.shape[:2]
    given = {"pixels": array.ctypes.data, "width": width, "height": height} | fields_
    image = make("image_encode", model, byref(capi.Picture(**given)), None)
    out = capi.read(make("caption", model, image, byref(short(max_tokens=12, logprobs=1))))
    lib().kosmos_image_free(image)
    return out["ids"], out["logprobs"]


def test_pixel_layouts_and_strides_give_the_same_picture(model):
    rgb = picture(3)
    expected = embedding_of(model, rgb)
    bgr = np.ascontiguousarray(rgb[:, :, ::-1])
    junk = np.full((80, 100, 1), 77, np.uint8)
    assert embedding_of(model, bgr, format=1) == expected
    assert embedding_of(model, np.concatenate([rgb, junk], 2), format=2) == expected
    assert embedding_of(model, np.concatenate([bgr, junk], 2), format=3) == expected
    padded = np.zeros((80, 333), np.uint8)
    padded[:, :300] = rgb.reshape(80, 300)
    assert embedding_of(model, padded, width=100, stride=333) == expected
    upside = np.ascontiguousarray(rgb[::-1])
    last_row = upside.ctypes.data + 79 * 300
    assert embedding_of(model, upside, pixels=last_row, stride=-300) == expected
    gray = np.ascontiguousarray(rgb[:, :, 0])
    assert embedding_of(model, gray, format=4) == embedding_of(model, np.repeat(gray[:, :, None], 3, 2).copy())
    assert embedding_of(model, bgr) != expected


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 0}, {"height": -1}, {"width": 65536}, {"width": 65535, "height": 65535}, {"pixels": None},
        {"format": 5}, {"format": -1}, {"stride": 299}, {"stride": -299}, {"stride": 2**62},
    ],
    ids=str,
)  # fmt: skip
def test_impossible_pictures_are_refused(model, wrong):
    array = picture()
    given = {"pixels": array.ctypes.data, "width": 100, "height": 80} | wrong
    assert "picture" in refused("image_encode", model, byref(capi.Picture(**given)), None, byref(c_void_p()))


# ---- options


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": -1}, {"max_tokens": 10**6}, {"num_beams": 9}, {"num_beams": -1}, {"temperature": -0.1},
        {"temperature": float("nan")}, {"temperature": 101.0}, {"top_p": 1.5, "temperature": 1.0}, {"top_p": 0.5},
        {"top_k": 5}, {"top_k": -1}, {"no_repeat_ngram_size": -2}, {"length_penalty": 1.0},
        {"length_penalty": 1.0, "use_length_penalty": 1}, {"grammar": 2}, {"lead_in": -2}, {"logprobs": 3},
        {"top_logprobs": -1}, {"top_logprobs": 21},
        {"ground": 9}, {"detailed": 5}, {"stop_count": 1}, {"choice_count": 1}, {"stop_count": 33},
        {"num_beams": 2, "temperature": 1.0}, {"cancel": 5},
    ],
    ids=str,
)  # fmt: skip
def test_options_out_of_range_are_refused_by_name(model, image, wrong):
    message = refused("caption", model, image, byref(short(**wrong)), byref(c_void_p()))
    assert any(name in message for name in [*wrong, "choices", "stop", "top_k"])


def test_texts_must_be_utf8_and_not_blank(model, image):
    for bad in (b"\xff", b"a\xc3", b" \t", b"", b"\xed\xa0\x80", "\u3000".encode()):
        assert "phrase" in refused("locate", model, image, bad, None, byref(c_void_p()))
        assert "question" in refused("ask", model, image, bad, None, byref(c_void_p()))
    stop = (ctypes.c_char_p * 1)(b"")
    assert "stop[0]" in refused("caption", model, image, byref(short(stop=stop, stop_count=1)), byref(c_void_p()))


def test_switches_that_a_function_has_not_are_refused(model, image):
    for verb, wrong in [("ground", {"ground": 1}), ("ground", {"detailed": 1}), ("locate", {"lead_in": 1})]:
        words = b"a dog" if verb == "locate" else None
        refused(verb, model, image, words, byref(short(**wrong)), byref(c_void_p()))
    choices = texts("a", "b")
    options = short(choices=choices, choice_count=2)
    assert "choices" in refused("caption", model, image, byref(options), byref(c_void_p()))
    options = short(choices=choices, choice_count=2, ground=1)
    assert "boxes" in refused("ask", model, image, b"What?", byref(options), byref(c_void_p()))


def test_a_prompt_beyond_the_context_says_both_counts(model):
    info = capi.ModelInfo()
    call("model_get", model, byref(info))
    words = (capi.Segment * 1)(capi.Segment(kind=1, text=b"a b c d e " * 2000))
    with pytest.raises(CError, match=str(info.context_length)) as error:
        make("generate", model, words, c_size_t(1), byref(short()))
    assert error.value.code == capi.TOO_LONG


@pytest.mark.parametrize("kind", [0, 6, -1])
def test_segments_of_unknown_kind_are_refused(model, kind):
    segments = (capi.Segment * 1)(capi.Segment(kind=kind))
    assert "kind" in refused("generate", model, segments, c_size_t(1), None, byref(c_void_p()))


def test_regions_outside_the_picture_are_refused(model, image):
    cases = [(0, 0, 101, 10, 0), (5, 5, 5, 9, 0), (0, 0, 1.01, 1, 1), (float("nan"), 0, 1, 1, 1), (0, 0, 1, 1, 2)]
    for x1, y1, x2, y2, unit in cases:
        region = byref(capi.Region(x1=x1, y1=y1, x2=x2, y2=y2, unit=unit))
        refused("describe", model, image, region, None, byref(c_void_p()))


def test_pixels_within_0_to_1_are_asked_about(model, image):
    """Both units are named; the same as fractions is answered, and for a picture of one pixel, where they are one."""
    one_pixel = capi.encode(model, picture(1, 1, 1))
    for corners in [(0.1, 0.2, 0.5, 0.6), (0, 0, 1, 1)]:
        box = dict(zip(("x1", "y1", "x2", "y2"), corners, strict=True))
        message = refused("describe", model, image, byref(capi.Region(**box)), None, byref(c_void_p()))
        assert "region" in message and "KOSMOS_UNIT_NORMALIZED" in message and "pixels" in message
        boxes = (capi.Region * 1)(capi.Region(**box))
        segments = (capi.Segment * 2)(capi.Segment(kind=3, image=image), capi.Segment(kind=4, boxes=boxes, box_count=1))
        message = refused("generate", model, segments, c_size_t(2), None, byref(c_void_p()))
        assert "segments[1].boxes[0]" in message and "KOSMOS_UNIT_NORMALIZED" in message
        assert (
            capi.read(make("describe", model, one_pixel, byref(capi.Region(**box)), byref(short())))["box"] is not None
        )
        answered = make("describe", model, image, byref(capi.Region(**box, unit=1)), byref(short()))
        assert capi.read(answered)["box"] is not None
