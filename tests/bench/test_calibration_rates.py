"""The parts of calibrated rounding are timed on a small matrix."""

import calibration_rates


def test_every_part_has_a_rate() -> None:
    seconds, rates = calibration_rates.rates(256, 128, 1, "Q4_K")
    assert len(seconds) == len(rates) == 3 and min(seconds) > 0 and min(rates) > 0
