"""Limits hold within, and are gone afterwards."""

import numpy as np
import pytest
from support import media
from transformers import ViTImageProcessorPil

from optimum_si import CalibrationConfig, CalibrationError
from optimum_si.calibration import prepare_examples
from optimum_si.calibration.limits import no_more_memory
from optimum_si.calibration.reader import Reader


def test_allocations_fail_within_and_not_afterwards():
    with pytest.raises(MemoryError), no_more_memory(1 << 27):
        np.ones(1 << 26)
    assert len(np.ones(1 << 26)) == 1 << 26


def test_a_processor_that_takes_all_memory_is_one_line():
    from PIL import Image

    processor = ViTImageProcessorPil(size={"height": 30_000, "width": 30_000})
    reader = Reader.of(media.vit()[0], lambda: processor)
    with pytest.raises(CalibrationError, match="Row 0 of the calibration data: ViTImageProcessorPil cannot read it"):
        prepare_examples([Image.new("RGB", (8, 8))] * 2, CalibrationConfig(num_samples=2), None, None, reader)
