"""The exceptions of awrs_ppl, one tree.

    AwrsError
    ├── ModelError           a model used `ctx` in a way that has no meaning
    │   └── ReplayError      a model did something else when it was run again
    ├── PotentialError       a potential broke its contract: NaN, +inf, a check that raised
    ├── ContextLengthError   a context has more tokens than the language model can take
    ├── VocabularyError      potentials with no token in common, or a text that no tokens spell
    ├── EmbeddedModelError   the weights are missing or damaged, or cannot be converted
    ├── SavedFileError       a file is no saved posterior, is damaged, or is of a newer version
    ├── WorkerError          a worker process of a pool died too often, or could not do its work
    └── NoSurvivors          every particle has weight zero, and a result was requested

An exception raised by a user's model is not wrapped: it comes out of `infer` as itself.
"""

from __future__ import annotations

__all__ = [
    "AwrsError",
    "ContextLengthError",
    "EmbeddedModelError",
    "ModelError",
    "NoSurvivors",
    "PotentialError",
    "ReplayError",
    "SavedFileError",
    "VocabularyError",
    "WorkerError",
]


class AwrsError(Exception):
    """The root of all errors that this library raises on purpose.

    >>> issubclass(ReplayError, ModelError) and issubclass(ModelError, AwrsError)
    True
    """


class ModelError(AwrsError):
    """A model used its context wrongly: a statement not awaited, two at once, a bad argument."""


class ReplayError(ModelError):
    """A model, run again on its own record, made another request than the first time."""


class PotentialError(AwrsError):
    """A potential broke its contract: it returned NaN or +inf, or a check of it raised."""


class ContextLengthError(AwrsError):
    """A context has more tokens than the language model has positions, or memory, for.

    In a model it is raised in the particle whose context is too long, at its `generate` or
    `observe`.
    """


class VocabularyError(AwrsError):
    """The potentials of a product have no token in common, or a text has no tokens."""


class EmbeddedModelError(AwrsError):
    """A model's weights are not on this machine or damaged, or their cache cannot be written."""


class SavedFileError(AwrsError, ValueError):
    """A file is no posterior that was saved, is damaged, or is of a newer version."""


class WorkerError(AwrsError):
    """A worker process of a pool died again and again, or cannot load what it is sent."""


class NoSurvivors(AwrsError):
    """Every particle has weight zero, so there is nothing to sample or to average."""
