"""What callers may ask of open_image: files that end early, more pixels; names that are none of a picture file."""

import io
import json
import threading
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from helpers.api_model import grounded_file, tiny_model
from helpers.pictures import encode, noise, with_tag
from PIL import Image, ImageFile

from kosmos_edge import cli, images
from kosmos_edge.errors import ImageDecodeError, InvalidRequest, KosmosIOError
from kosmos_edge.images import open_image

# ---- files that end early, on request


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "progressive JPEG", "GIF", "BMP", "TIFF", "PPM", "TGA", "MPO"])
@pytest.mark.parametrize("percent", [40, 70, 95])
def test_what_there_is_of_a_truncated_file(
    file_format: str, percent: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = {"progressive": True} if file_format.startswith("progressive") else {}
    data = encode(noise(160, 120), file_format.split()[-1], **options)
    data = data[: len(data) * percent // 100]
    picture = open_image(data, allow_truncated=True)
    assert any("the file ends early" in note for note in picture.notes)
    path = tmp_path / "picture"
    path.write_bytes(data)
    opened = Image.open(io.BytesIO(data))
    for source in (path, io.BytesIO(data), opened):
        assert open_image(source, allow_truncated=True).rgb == picture.rgb
    for source in (path, opened):  # the image goes on refusing
        with pytest.raises(ImageDecodeError, match="truncated"):
            open_image(source)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert Image.open(io.BytesIO(data)).convert("RGB").tobytes() == picture.rgb  # as with Pillow's own switch


def test_the_rest_of_a_frame_and_of_an_orientation(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [noise(160, 120, seed) for seed in range(3)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    second = data[: len(data) // 2]
    assert open_image(second, frame=0, allow_truncated=True).rgb == open_image(data, frame=0).rgb
    picture = open_image(second, frame=1, allow_truncated=True)
    assert any("ends early" in note for note in picture.notes) and any("frame 1" in note for note in picture.notes)
    with monkeypatch.context() as patch:
        patch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        image = Image.open(io.BytesIO(second))
        image.seek(1)
        assert picture.rgb == image.convert("RGB").tobytes() != open_image(data, frame=0).rgb
    turned = encode(noise(160, 120), "JPEG", exif=with_tag(6))
    picture = open_image(turned[: len(turned) * 3 // 4], allow_truncated=True)
    assert (picture.width, picture.height) == (120, 160) and any("EXIF" in note for note in picture.notes)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_whole_and_damaged_files_are_what_they_were(file_format: str) -> None:
    data = encode(noise(61, 47), file_format)
    assert open_image(data, allow_truncated=True).rgb == open_image(data).rgb
    assert open_image(data, allow_truncated=True).notes == ()
    for bad in (b"", data[:9], b"some text that is no picture", data[:-20] if file_format == "WEBP" else data[:20]):
        with pytest.raises(ImageDecodeError):
            open_image(bad, allow_truncated=True)


def test_a_truncated_file_beside_others() -> None:
    """Threads that did not ask for it refuse what others take, also from the same image."""
    data = encode(noise(160, 120), "JPEG")[:2000]
    image = Image.open(io.BytesIO(data))
    wanted = open_image(data, allow_truncated=True).rgb
    found: list[object] = [None] * 12
    barrier = threading.Barrier(len(found))

    def work(number: int) -> None:
        barrier.wait()
        for source in (data, image):
            try:
                found[number] = open_image(source, allow_truncated=number % 2 == 0).rgb
            except ImageDecodeError:
                found[number] = "refused"

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(found))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [wanted, "refused"] * 6


# ---- more pixels, on request


def test_max_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    image, limit = noise(30, 40), Image.MAX_IMAGE_PIXELS
    for source in (encode(image, "PNG"), image, np.asarray(image)):
        assert open_image(source, max_pixels=1200).width == 30
        with pytest.raises(ImageDecodeError, match="30 x 40 pixels are more than the 1199 that max_pixels allows"):
            open_image(source, max_pixels=1199)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for file_format in ("PNG", "JPEG", "BMP", "TIFF", "QOI"):
        data = encode(image, file_format)
        with pytest.raises(ImageDecodeError, match="max_pixels"):
            open_image(data)
        assert open_image(data, max_pixels=1200).width == 30
    for bad in (0, -1, 1.5, True, (1 << 28) + 1, "9"):
        with pytest.raises(InvalidRequest, match="max_pixels"):
            open_image(encode(image, "PNG"), max_pixels=bad)  # type: ignore[arg-type]
    assert limit is not None and limit < 1 << 28


@pytest.mark.parametrize("file_format", ["WEBP", "GIF", "ICO", "MPO"])
def test_formats_that_ask_for_pillows_limit_themselves(file_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [noise(32, 32, 1), noise(32, 32, 2)]
    several = {"save_all": True, "append_images": frames[1:]} if file_format != "ICO" else {}
    data = encode(frames[0], file_format, **several)
    wanted = open_image(data).rgb
    later = open_image(data, frame=1).rgb if several else wanted
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageDecodeError, match="MAX_IMAGE_PIXELS"):
        open_image(data)
    assert open_image(data, max_pixels=1024).rgb == wanted
    if several:
        assert open_image(data, max_pixels=1024, frame=1).rgb == later
    assert Image.MAX_IMAGE_PIXELS == 100


def test_a_raised_limit_is_for_who_asked() -> None:
    limit = Image.MAX_IMAGE_PIXELS
    with images._raised_limit(1 << 28):
        assert Image.MAX_IMAGE_PIXELS == 1 << 28 and images._pillows_limit() == limit
    assert limit == Image.MAX_IMAGE_PIXELS
    with images._raised_limit(1 << 28):
        Image.MAX_IMAGE_PIXELS = 5  # by the program that we are in: its word counts
    assert images._pillows_limit() == 5
    Image.MAX_IMAGE_PIXELS = limit


def test_options_are_refused_for_what_is_decoded() -> None:
    picture = open_image(encode(noise(4, 4), "PNG"))
    for options in ({"exif": False}, {"frame": 0}, {"max_pixels": 9}, {"allow_truncated": True}):
        with pytest.raises(InvalidRequest, match="already decoded"):
            open_image(picture, **options)  # type: ignore[arg-type]


# ---- names


@pytest.mark.parametrize(
    "url",
    [
        "http://a/b.png",
        "HTTPS://a/b",
        "file:///a/b.png",
        "s3://bucket/a.png",
        "gs://b/a",
        "data:image/png;base64,iVBORw0",
    ],
)
def test_urls_are_not_fetched(url: str) -> None:
    for source in (url, Path(url)):
        with pytest.raises(InvalidRequest, match="URLs are not fetched"):
            open_image(source)
    long = "data:image/png;base64," + "A" * 100_000
    with pytest.raises(InvalidRequest, match="bytes") as caught:
        open_image(long)
    assert len(str(caught.value)) < 300


def test_a_file_may_be_called_like_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("http:/host").mkdir(parents=True)
    Path("http:/host/a.png").write_bytes(encode(noise(4, 4), "PNG"))
    assert open_image("http://host/a.png").width == 4
    for name in ("data: of today.png", "C:/a.png", "a:b.png", "http.png"):
        with pytest.raises(KosmosIOError):
            open_image(name)


def test_links_that_lead_nowhere_say_where(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("gone.png")
    with pytest.raises(KosmosIOError, match=r"a link to gone\.png"):
        open_image(tmp_path / "a.png")


def test_names_of_pictures_are_not_taken_for_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photo.png").write_bytes(encode(noise(9, 9), "PNG"))
    Path("folder.png").mkdir()
    Path("notes.txt").touch()
    for name in ("IMG_0001", "photo.backup"):
        Path(name).write_bytes(Path("photo.png").read_bytes())
    Path("README").write_text("# A project about pictures\n")
    names = ["photo.png", " photo.png\n", str(tmp_path / "photo.png"), "https://a/b.JPG", "data:image/png;base64,iV"]
    names += ["IMG_0001", "photo.backup", "https://a/b.jpg?w=640", "https://a/b.png#top", "https://a/get?name=b.png"]
    for text in names:
        assert images.names_picture(text), text
        with pytest.raises(InvalidRequest, match=r"name of a picture.*Path\(.*open_image"):
            tiny_model().generate([text, "An image of"], max_tokens=1)
    words = ["other.png", "folder.png", "notes.txt", "a photo.png", "photo.png and more", "https://a/b", "", "\0.png"]
    words += ["README", "IMG_0002", "is it b.png?", "https://a/b?c=d"]
    for text in words:
        assert not images.names_picture(text), text
    model, given = tiny_model(), [Path("photo.png"), "An image of other.png"]
    assert model.generate(given, max_tokens=1).width == 9
    assert model.generate([open_image("photo.png"), "a"], max_tokens=1).width == 9


# ---- the command line


def test_commands_have_the_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big, cut = tmp_path / "big.png", tmp_path / "cut.png"
    data = encode(noise(160, 120), "PNG")
    big.write_bytes(data)
    cut.write_bytes(data[: len(data) // 2])
    for command in (["batch", big], ["generate", "--image", big], ["caption", big, "--shot", f"{big}::a dog"]):
        assert run(*command).code == 0
        assert run(*command, "--max-pixels", 19200).code == 0
        assert "more than the 19199 that max_pixels allows" in run(*command, "--max-pixels", 19199).said
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9000)
    for command in (["batch", big], ["generate", "--image", big]):
        assert "--max-pixels" in run(*command).said
        assert run(*command, "--max-pixels", 19200).code == 0
    monkeypatch.undo()
    for command in (["batch", cut], ["generate", "--image", cut], ["caption", big, "--shot", f"{cut}::a dog"]):
        assert "truncated" in run(*command).said
        assert run(*command, "--allow-truncated").code == 0
    done = run("batch", cut, "--allow-truncated")
    assert f"{cut}: the file ends early" in done.said and "the file ends early" in json.loads(done.out)["notes"][0]
    drawn = tmp_path / "drawn.png"
    assert run("ground", cut, "--allow-truncated", "--draw", drawn).code == 0 and drawn.exists()
    assert "268435456" in run("batch", big, "--max-pixels", 1 << 29).said
    with_worker = run("batch", cut, "--allow-truncated", "--isolation", "process")
    assert with_worker.code == 0 and json.loads(with_worker.out)["notes"] == json.loads(done.out)["notes"]


def test_generate_does_not_take_a_picture_for_words(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(encode(noise(9, 9), "PNG"))
    done = run("generate", "--text", path, "--text", "An image of")
    assert done.code == 2 and f"use --image {path} to show the image" in done.said
    done = run("generate", "--text", "https://a/photo.png", "--text", "An image of")
    assert done.code == 2 and "download it" in done.said
    assert run("generate", "--image", path, "--text", "An image of photo.png").code == 0


class Done:
    """How a command ended and what it printed."""

    def __init__(self, code: int, out: str, said: str) -> None:
        self.code, self.out, self.said = code, out, said


def run(*arguments: object) -> Done:
    words = [str(a) for a in arguments]
    out, said = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(said):
        code = cli.run([*words, "--model", str(grounded_file()), "--threads", "1", "--max-tokens", "3", "-f", "jsonl"])
    return Done(code, out.getvalue(), said.getvalue())
