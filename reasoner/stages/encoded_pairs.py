"""Loading and encoding of a stage's preference pairs."""

from __future__ import annotations

from collections.abc import Sequence

from reasoner.config.errors import ConfigError
from reasoner.data.pairs import EncodedPair, encode_pairs
from reasoner.data.preferences import PAIR_SHAPE, load_pairs, shares
from reasoner.data.rows import RowPolicy, report_bad_rows
from reasoner.session.session import Session
from tasks import BadRow
from tasks.inputs.spool import Joined


def load_encoded(session: Session) -> tuple[Sequence[EncodedPair], Sequence[EncodedPair]]:
    """Return training and held-out pairs as token ids; unusable rows are left out and reported.

    Raises:
        ConfigError: no training pair is left, or a pair is unusable and preferences.bad_rows is to stop.
    """
    config, policy = session.config, session.policy
    section = config.preferences
    bad: list[BadRow] = []
    sides: list[Sequence[EncodedPair]] = []
    total = 0
    for split, found in load_pairs(section)._asdict().items():
        limit = min(section.max_tokens or policy.context, policy.context)
        kept, long = encode_pairs(found.pairs, policy.tokenizer, config.prompt, limit=limit)
        total += len(found.pairs) + len(found.bad)
        bad += [*found.bad, *long]
        sides.append(kept)
        if session.fresh:
            for note in found.notes:
                session.display.note(note)
            session.display.note(f"{split}: {'; '.join(shares(encoded.pair for encoded in kept))}")
    report = report_bad_rows(
        bad,
        total=total,
        policy=RowPolicy(section.bad_rows, "preferences.bad_rows"),
        shape=PAIR_SHAPE,
        folder=session.run.path,
    )
    if report and session.fresh:
        session.display.note(report)
    if not sides[0]:
        raise ConfigError("bad-value", "preferences.train must contain at least one usable pair; there is none.")
    session.same_data("pairs", Joined(sides))
    return sides[0], sides[1]
