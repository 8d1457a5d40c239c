"""A teacher of distillation behind vLLM servers. Letters: B rows, N completion tokens."""

from __future__ import annotations

import torch
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from reasoner import processes
from reasoner.algorithm.batch import Batch
from reasoner.algorithm.distillation import readable, with_teacher
from reasoner.config.sections import TeacherSection
from reasoner.engine.scoring import ScoringServers
from reasoner.model.load import tokens_of
from reasoner.model.same_tokenizer import check_same_texts


class ServerTeacher:
    """Scorer of rows with a model behind servers."""

    def __init__(self, section: TeacherSection, *, tokenizer: PreTrainedTokenizerBase) -> None:
        """Connect, and compare the servers' tokenizer with the policy's.

        Raises:
            ConfigError: it is another one.
            EngineError: a server does not answer.
        """
        self._servers = ScoringServers(
            section.urls, setting="teacher.urls", key_variable=section.key_variable, ca_file=section.ca_file
        )
        self._tokens = tokens_of(tokenizer)
        try:
            check_same_texts(tokenizer, self._servers.text_of, teacher=section.urls[0])
            self.context = self._servers.context()
        except BaseException:
            self.close()
            raise

    def annotate(self, batch: Batch) -> Batch:
        """Set the teacher's log-probabilities. With n processes, each one asks for every n-th row."""
        rows = [ids.tolist() for ids in readable(batch, tokens=self._tokens).input_ids]
        own = self._servers.score(rows[processes.rank() :: processes.count()])
        shares = processes.gather(own)
        scored = [shares[row % processes.count()][row // processes.count()] for row in range(len(rows))]
        starts = batch.prompt_lengths_B.tolist()
        flat = [value for row, start in zip(scored, starts, strict=True) for value in row[start - 1 :]]
        return with_teacher(batch, torch.tensor(flat, dtype=torch.float32), tokens=self._tokens)

    def close(self) -> None:
        """Close the connections."""
        self._servers.close()
