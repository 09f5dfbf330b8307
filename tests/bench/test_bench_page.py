"""bench/page.py: what it counts, and the table of rounds that were measured elsewhere."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def page():
    spec = importlib.util.spec_from_file_location("bench_page", ROOT / "bench" / "page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_counts_of_the_published_sizes(page):
    """Products of the encoder's 18 layers: its parameters without tables, embeddings and norms times 4,096 patches."""
    weights = 512_812_032 - 2 * 4096 * 1536 - (768 * 1536 + 1536) - (2 * 18 + 1) * 1536
    layers = 18 * (4 * 1536**2 + 3 * 1536 * 3968)
    assert abs(weights - layers) <= 2 * 1536
    attention = 18 * 2 * 4096**2 * 1536
    resampler = 4096 * 1536 * 3072 + 2 * 2048 * 6144 * 1536 + 2048 * 1536**2
    assert page.encode_macs() == 4096 * (layers + 768 * 1536) + attention + resampler
    # A layer's weights, 28,343,808 of which are no products: four norms and the biases.
    products = 28_343_808 - (2 * 1536 + 2 * 1536 + 2 * 6144) - (4 * 1536 + 6144 + 1536)
    assert page.prefill_macs() == 24 * (2052 * products + 2052 * 2053 * 1536) + 1536 * 108481


def test_the_table_has_bounds_shares_and_ratios(page):
    def pages(*factors: float) -> list[dict[str, float]]:
        return [{"encode": 2 * f, "prefill": f, "decode": 0.02 * f, "tokens": 64, "peak": 1.5e9} for f in factors]

    peaks = {"int8": 1e12, "float32": 1e11, "read": 2e10}
    text = page.table(
        {
            "how": {"gguf": "x.gguf", "threads": 2, "rounds": 3, "tokens": 64},
            "about": {"ours": "kosmos-edge", "float32": "transformers"},
            "peaks": peaks,
            "decode_bytes": 2e8,
            "bounds": page.bounds(2e8, peaks),
            "rounds": {"ours": pages(1, 2, 3), "float32": pages(4, 8, 30)},
        }
    )
    bound, ours, theirs = text.splitlines()[2:5]
    assert "| 0.01 s |" in bound and f"{page.encode_macs() / 1e12:.4g} s" in bound
    assert "| 0.04 s, 25 % of the bound |" in ours and "| 26 s, " in ours and ours.endswith("| 1500 MB |")
    assert theirs.count("4.00 times ours") == 4  # the median of 4, 4 and 10
    assert "200 MB at 20.0 GB/s" in text


def test_bytes_of_a_token(page):
    """KOSMOS-2.5's keys and values for the prompt and half of 4,000 tokens; nano's weights stand for its own here."""
    nano = ROOT / "kosmos_edge" / "data" / "nano-q4_k_m.gguf"
    f16, q8_0 = (page.decode_bytes(nano, 4000, kv_type) for kv_type in ("f16", "q8_0"))
    assert f16 == page.decode_bytes(nano, 4000)
    assert f16 - q8_0 == 24 * 2 * 1536 * (2 - 34 / 32) * (2052 + 2000)


def test_arguments_are_checked(page, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["page.py", "--gguf", "x.gguf", "--tokens", "1"])
    with pytest.raises(SystemExit):
        page.main()
    assert "--tokens must be at least 2" in capsys.readouterr().err
