"""Pictures in a model's own form: prepared ahead they are encoded to the same bits, and only by their own model."""

import pytest
from helpers.api_model import tiny_file
from helpers.tiny import make_picture

from kosmos_edge import _core
from kosmos_edge.errors import InvalidRequest


@pytest.fixture(scope="module")
def engine() -> _core.Engine:
    return _core.Engine(str(tiny_file()), threads=1)


@pytest.mark.parametrize(("width", "height"), [(56, 56), (100, 80), (1, 300)])
def test_a_prepared_picture_is_encoded_to_the_same_bits(engine: _core.Engine, width: int, height: int) -> None:
    rgb = make_picture(3, width, height).tobytes()
    at_once = engine.encode_image(rgb, width, height)
    ahead = engine.encode_prepared(engine.prepare_image(rgb, width, height))
    assert ahead.tobytes() == at_once.tobytes() and ahead.shape == at_once.shape
    assert engine.restore_image(at_once.tobytes()).tobytes() == at_once.tobytes()


def test_pictures_belong_to_their_model(engine: _core.Engine) -> None:
    other = _core.Engine(str(tiny_file()), threads=1)
    rgb = make_picture(3, 20, 10).tobytes()
    with pytest.raises(InvalidRequest, match="prepared by another model"):
        other.encode_prepared(engine.prepare_image(rgb, 20, 10))
    with pytest.raises(InvalidRequest, match="encoded by another model"):
        other.prompt_ids([("image", engine.encode_image(rgb, 20, 10))])
    with pytest.raises(InvalidRequest, match="an encoded picture has 64 x 256 values, got 1"):
        engine.restore_image(bytes(4))
