"""What an inference writes to the log: when it begins, resamples, and ends."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from awrs_ppl.program.execution import name_of_model

if TYPE_CHECKING:
    from awrs_ppl.posterior.posterior import Posterior
    from awrs_ppl.posterior.records import Sync

__all__ = ["begins", "ends", "resamples"]

_log = logging.getLogger(__name__)


def begins(model: Any, n_particles: int, runs: int, seed: int) -> None:
    """An inference begins."""
    many = f"{n_particles} particles" + (f" in each of {runs} runs" if runs > 1 else "")
    _log.info("%s: inference of %s begins, seed %d", name_of_model(model), many, seed)


def ends(model: Any, posterior: Posterior) -> None:
    """An inference has ended, by itself or not."""
    if not _log.isEnabledFor(logging.INFO):
        return
    _log.info(
        "%s: inference %s: log_ml %.2f, ESS %.1f of %d, %d steps, %d tokens in %.2f s",
        name_of_model(model),
        posterior.stopped or "has ended",
        posterior.log_ml,
        posterior.ess,
        len(posterior),
        len(posterior.heaviest.history),
        posterior.stats.tokens,
        sum(posterior.stats.seconds.values()),
    )


def resamples(step: int, sync: Sync, run: int) -> None:
    """The population is resampled, or its children compete, after a step."""
    _log.debug(
        "run %d, step %d: resampled at an ESS of %.1f, %d alive, %.1f %% of the weight survived",
        run,
        step,
        sync.ess,
        sync.alive,
        100 * sync.survived,
    )
