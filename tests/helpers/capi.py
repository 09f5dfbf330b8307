"""kosmos.h through ctypes: the structs, and a thin class over the calls, for the tests of the C interface."""

import ctypes
import os
import subprocess
from ctypes import CFUNCTYPE, POINTER, byref, c_char_p, c_double, c_float, c_int32, c_size_t, c_uint64, c_void_p
from functools import cache
from pathlib import Path

import pytest

from kosmos_edge.errors import KosmosError
from kosmos_edge.native import LIBRARIES, native_paths

ROOT = Path(__file__).resolve().parents[2]

Log = CFUNCTYPE(None, c_int32, c_char_p, c_void_p)
Progress = CFUNCTYPE(c_int32, c_uint64, c_uint64, c_void_p)
Abort = CFUNCTYPE(c_int32, c_void_p)


def fields(*pairs):
    return [("struct_size", c_size_t), *pairs]


class Sized(ctypes.Structure):
    def __init__(self, **values):
        super().__init__(**values)
        self.struct_size = ctypes.sizeof(self)


class LoadOptions(Sized):
    _fields_ = fields(
        ("device", c_char_p),
        ("isa", c_char_p),
        ("threads", c_int32),
        ("copy", c_int32),
        ("on_progress", Progress),
        ("on_log", Log),
        ("user", c_void_p),
        ("cancel", c_void_p),
        ("mmproj", c_char_p),
        ("kv_type", c_char_p),
        ("shared_weights", c_char_p),
    )


class ModelInfo(Sized):
    _fields_ = fields(
        *((name, c_char_p) for name in ("name", "notice", "device", "description", "isa")),
        *(
            (name, c_int32)
            for name in (
                "threads",
                "context_length",
                "image_tokens",
                "location_bins",
                "vocabulary",
                "max_tokens",
                "no_repeat_ngram_size",
                "reserved",
            )
        ),
        ("file_bytes", c_uint64),
        ("architecture", c_char_p),
        ("preprocessing", c_char_p),
        ("tasks", POINTER(c_char_p)),
        ("task_count", c_size_t),
        *(
            (f"prompt_{name}", c_char_p)
            for name in (
                "caption",
                "caption_detailed",
                "question",
                "locate",
                "describe",
                "grounding",
                "read",
                "markdown",
            )
        ),
        ("width", c_int32),
        ("reserved2", c_int32),
        ("repetition_penalty", c_double),
        ("kv_type", c_char_p),
        ("kv_token_bytes", c_uint64),
        ("weight_bytes_shared", c_uint64),
    )


class Picture(Sized):
    _fields_ = fields(
        ("pixels", c_void_p),
        ("width", c_int32),
        ("height", c_int32),
        ("stride", ctypes.c_ssize_t),
        ("format", c_int32),
        ("reserved", c_int32),
    )


class EncodeOptions(Sized):
    _fields_ = fields(
        ("cancel", c_void_p), ("on_abort", Abort), ("user", c_void_p), ("keep", c_int32), ("reserved", c_int32)
    )


class ImageInfo(Sized):
    _fields_ = fields(("width", c_int32), ("height", c_int32), ("encode_ms", c_double))


class Box(ctypes.Structure):
    _fields_ = [
        *((name, c_double) for name in ("x1", "y1", "x2", "y2", "px1", "py1", "px2", "py2", "score")),
        ("cells", c_int32 * 2),
        ("valid", c_int32),
        ("reserved", c_int32),
    ]


class Entity(Sized):
    _fields_ = fields(
        ("phrase", c_char_p),
        ("phrase_length", c_size_t),
        ("start", c_size_t),
        ("end", c_size_t),
        ("score", c_double),
        ("boxes", POINTER(Box)),
        ("box_count", c_size_t),
        ("phrase_score", c_double),
        ("found_score", c_double),
        ("phrase_mean", c_double),
    )


class Event(Sized):
    _fields_ = fields(
        ("kind", c_int32),
        ("token_id", c_int32),
        ("logprob", c_double),
        ("text", c_void_p),
        ("text_length", c_size_t),
        ("entity", POINTER(Entity)),
    )


class Region(Sized):
    _fields_ = fields(
        *((name, c_double) for name in ("x1", "y1", "x2", "y2")), ("unit", c_int32), ("reserved", c_int32)
    )


class Example(Sized):
    _fields_ = fields(("image", c_void_p), ("text", c_char_p), ("region", POINTER(Region)), ("answer", c_char_p))


class Turn(Sized):
    _fields_ = fields(("image", c_void_p), ("question", c_char_p), ("answer", c_char_p))


OnEvent = CFUNCTYPE(c_int32, POINTER(Event), c_void_p)


class Options(Sized):
    _fields_ = fields(
        ("max_tokens", c_int32),
        ("num_beams", c_int32),
        ("temperature", c_double),
        ("top_p", c_double),
        ("top_k", c_int32),
        ("no_repeat_ngram_size", c_int32),
        ("seed", c_uint64),
        ("length_penalty", c_double),
        *((name, c_int32) for name in ("use_length_penalty", "ground", "grammar", "lead_in", "logprobs", "detailed")),
        ("stop", POINTER(c_char_p)),
        ("stop_count", c_size_t),
        ("choices", POINTER(c_char_p)),
        ("choice_count", c_size_t),
        ("cancel", c_void_p),
        ("on_abort", Abort),
        ("on_event", OnEvent),
        ("user", c_void_p),
        ("examples", POINTER(Example)),
        ("example_count", c_size_t),
        ("min_score", c_double),
        ("template_text", c_char_p),
        ("markdown", c_int32),
        ("top_logprobs", c_int32),
        ("turns", POINTER(Turn)),
        ("turn_count", c_size_t),
        ("repetition_penalty", c_double),
    )


class Segment(Sized):
    _fields_ = fields(
        ("kind", c_int32),
        ("reserved", c_int32),
        ("text", c_char_p),
        ("image", c_void_p),
        ("boxes", POINTER(Region)),
        ("box_count", c_size_t),
        ("rows", POINTER(c_float)),
        ("row_count", c_size_t),
    )


class Request(Sized):
    _fields_ = fields(
        ("task", c_int32),
        ("reserved", c_int32),
        ("id", c_uint64),
        ("image", c_void_p),
        ("text", c_char_p),
        ("region", POINTER(Region)),
        ("options", POINTER(Options)),
    )


OnNext = CFUNCTYPE(c_int32, POINTER(Request), c_void_p)
OnAnswer = CFUNCTYPE(c_int32, c_uint64, c_void_p, c_void_p, c_void_p)


class BatchOptions(Sized):
    _fields_ = fields(
        ("batch_size", c_int32),
        ("reserved", c_int32),
        ("on_next", OnNext),
        ("on_answer", OnAnswer),
        ("on_abort", Abort),
        ("user", c_void_p),
        ("cancel", c_void_p),
    )


class ResultInfo(Sized):
    _fields_ = fields(
        ("text", c_void_p),
        ("text_length", c_size_t),
        ("entity_count", c_size_t),
        ("token_ids", POINTER(c_int32)),
        ("logprobs", POINTER(c_float)),
        ("token_count", c_size_t),
        ("prompt_token_count", c_size_t),
        ("reused_token_count", c_size_t),
        *((name, c_int32) for name in ("finish", "width", "height", "has_box")),
        ("box", Box),
        *((name, c_double) for name in ("prefill_ms", "decode_ms", "total_ms")),
        ("device", c_char_p),
        ("model", c_char_p),
        ("notes", POINTER(c_char_p)),
        ("note_count", c_size_t),
        ("top_token_ids", POINTER(c_int32)),
        ("top_logprobs", POINTER(c_float)),
        ("top_count", c_size_t),
    )


class ScoreOptions(Sized):
    _fields_ = fields(
        ("template_text", c_char_p),
        ("normalize", c_int32),
        ("reserved", c_int32),
        ("cancel", c_void_p),
        ("on_abort", Abort),
        ("user", c_void_p),
    )


class ScoreInfo(Sized):
    _fields_ = fields(
        ("index", c_size_t),
        *((name, c_double) for name in ("score", "share", "logprob_sum", "logprob_mean")),
        ("token_ids", POINTER(c_int32)),
        ("logprobs", POINTER(c_float)),
        ("token_count", c_size_t),
        ("greedy", c_int32),
        ("reserved", c_int32),
    )


class RankingInfo(Sized):
    _fields_ = fields(
        *((name, c_size_t) for name in ("count", "token_count", "reused_token_count")),
        ("width", c_int32),
        ("height", c_int32),
        ("total_ms", c_double),
        ("device", c_char_p),
        ("model", c_char_p),
        ("notes", POINTER(c_char_p)),
        ("note_count", c_size_t),
    )


STRUCTS = {
    "load_options": LoadOptions,
    "model_info": ModelInfo,
    "picture": Picture,
    "encode_options": EncodeOptions,
    "image_info": ImageInfo,
    "box": Box,
    "entity": Entity,
    "event": Event,
    "options": Options,
    "region": Region,
    "example": Example,
    "turn": Turn,
    "segment": Segment,
    "request": Request,
    "batch_options": BatchOptions,
    "result_info": ResultInfo,
    "score_options": ScoreOptions,
    "score_info": ScoreInfo,
    "ranking_info": RankingInfo,
}
FINISH = ["stop", "stop_string", "length", "choice", "callback"]
OK, INVALID, NOT_FOUND, CORRUPT, IMAGE, DEVICE, MEMORY, TOO_LONG, CANCELLED, IO, INTERNAL, FORKED = range(12)


@cache
def library_path() -> Path:
    """The installed library, KOSMOS_EDGE_LIBRARY, or one in a build folder of the checkout; else a skip."""
    if "KOSMOS_EDGE_LIBRARY" in os.environ:
        return Path(os.environ["KOSMOS_EDGE_LIBRARY"])
    try:
        return native_paths().library
    except KosmosError:
        found = [p for name in LIBRARIES for p in (ROOT / "build").glob(f"**/{name}")]
    if not found:
        pytest.skip("the C library is not built: install the package, or name it in KOSMOS_EDGE_LIBRARY")
    return max(found, key=lambda p: p.stat().st_mtime)


@cache
def lib() -> ctypes.CDLL:
    library = ctypes.CDLL(str(library_path()))
    for name in ("version", "status_name", "error_message"):
        getattr(library, f"kosmos_{name}").restype = c_char_p
    library.kosmos_error_message.argtypes = library.kosmos_error_code.argtypes = [c_void_p]
    library.kosmos_ranking_count.restype = c_size_t
    library.kosmos_ranking_count.argtypes = [c_void_p]
    for kind in ("model", "image", "result", "ranking", "cancel", "error"):
        free = getattr(library, f"kosmos_{kind}_free")
        free.argtypes, free.restype = [c_void_p], None
    return library


def compile_program(source: Path, out: Path, *flags: str) -> Path:
    """A C or C++ program that uses the library. KOSMOS_EDGE_SANITIZE: what the library was built with."""
    library = library_path().resolve()
    compiler = ["c++", "-std=c++20"] if source.suffix == ".cpp" else ["cc", "-std=c99", "-D_POSIX_C_SOURCE=200809L"]
    command = [*compiler, "-pedantic", "-Wall", "-Wextra", "-Werror", "-O1", "-g1", *flags, str(source)]
    if sanitizers := os.environ.get("KOSMOS_EDGE_SANITIZE"):
        command += [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"]
    command += [f"-I{ROOT / 'include'}", str(library), f"-Wl,-rpath,{library.parent}", "-pthread", "-o", str(out)]
    made = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"LD_PRELOAD": ""})
    assert made.returncode == 0, made.stderr
    return out


def run_program(program: Path, *arguments: object, environment: dict[str, str] | None = None) -> str:
    """What it prints; it must succeed. It brings the sanitizers' run time itself, and has no leaks."""
    env = os.environ | {"LD_PRELOAD": "", "ASAN_OPTIONS": "detect_leaks=1:allocator_may_return_null=1"}
    command = [str(program), *map(str, arguments)]
    out = subprocess.run(command, capture_output=True, text=True, env=env | (environment or {}), timeout=600)
    assert out.returncode == 0, f"{' '.join(command)}: {out.returncode}\n{out.stdout}\n{out.stderr}"
    return out.stdout


class CError(Exception):
    """A status that is not KOSMOS_OK."""

    def __init__(self, code: int, message: str):
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


def call(name: str, *arguments) -> None:
    """kosmos_<name>(..., &error); raises CError."""
    error = c_void_p()
    code = getattr(lib(), f"kosmos_{name}")(*arguments, byref(error))
    if code == OK:
        assert not error
        return
    assert lib().kosmos_error_code(error) == code
    message = lib().kosmos_error_message(error).decode()
    lib().kosmos_error_free(error)
    raise CError(code, message)


def make(name: str, *arguments) -> c_void_p:
    """A function whose last but one parameter is the new object."""
    out = c_void_p(1)
    try:
        call(name, *arguments, byref(out))
    except CError:
        assert not out
        raise
    assert out
    return out


def texts(*values: str):
    """A char*[] of UTF-8 texts."""
    return (c_char_p * len(values))(*(v.encode() for v in values))


def load(path, **options) -> c_void_p:
    return make("model_load", os.fsencode(path), byref(LoadOptions(**options)))


def encode(model, array, **options) -> c_void_p:
    """array: (height, width, 3) uint8, contiguous."""
    height, width = array.shape[:2]
    picture = Picture(pixels=array.ctypes.data, width=width, height=height)
    return make("image_encode", model, byref(picture), byref(EncodeOptions(**options)))


def read(result: c_void_p) -> dict:
    """Everything in a result, which is freed."""
    info = ResultInfo()
    call("result_get", result, byref(info))
    text = ctypes.string_at(info.text, info.text_length)
    entities = []
    for index in range(info.entity_count):
        entity = Entity()
        call("result_get_entity", result, c_size_t(index), byref(entity))
        phrase = entity.phrase.decode()
        assert len(entity.phrase) == entity.phrase_length
        span = (len(text[: entity.start].decode()), len(text[: entity.end].decode()))
        boxes = [
            ((b.x1, b.y1, b.x2, b.y2), (b.px1, b.py1, b.px2, b.py2), tuple(b.cells), b.score, bool(b.valid))
            for b in entity.boxes[: entity.box_count]
        ]
        entities.append(
            (phrase, span, (entity.score, entity.phrase_score, entity.found_score, entity.phrase_mean), boxes)
        )
    out = {
        "text": text.decode(),
        "entities": entities,
        "ids": info.token_ids[: info.token_count],
        "logprobs": info.logprobs[: info.token_count],
        "top": [
            list(zip(info.top_token_ids[i:j], info.top_logprobs[i:j], strict=True))
            for i, j in ((n * info.top_count, (n + 1) * info.top_count) for n in range(info.token_count))
            if j > i
        ],
        "prompt_tokens": info.prompt_token_count,
        "reused": info.reused_token_count,
        "finish": FINISH[info.finish],
        "size": (info.width, info.height),
        "box": tuple(info.box.cells) if info.has_box else None,
        "notes": [note.decode() for note in info.notes[: info.note_count]] if info.note_count else [],
        "device": info.device.decode(),
        "model": info.model.decode(),
        "ms": (info.prefill_ms, info.decode_ms, info.total_ms),
    }
    lib().kosmos_result_free(result)
    return out
