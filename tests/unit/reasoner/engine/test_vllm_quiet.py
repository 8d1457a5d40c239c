"""Process state that vLLM's engine leaves unchanged, tested without vLLM."""

from __future__ import annotations

import logging
import warnings

import pytest

from reasoner.engine.vllm import _quiet


@pytest.mark.parametrize("level", [logging.NOTSET, logging.DEBUG, logging.ERROR])
def test_the_level_of_vllms_logger_is_given_back(level: int) -> None:
    logger = logging.getLogger("vllm")
    logger.setLevel(level)

    @_quiet()
    def start() -> None:
        assert not logger.isEnabledFor(logging.WARNING)
        assert logger.isEnabledFor(logging.ERROR)
        warnings.warn("vLLM's own", FutureWarning, stacklevel=1)
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        start()
    assert logger.level == level
    with _quiet():
        logger.setLevel(logging.INFO)  # as vLLM does by VLLM_LOGGING_LEVEL
    assert logger.level == logging.INFO
    logger.setLevel(logging.NOTSET)
