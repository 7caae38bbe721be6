"""A folder of saved posteriors, one for each input of a job."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from awrs_ppl._messages import quoted, safe_repr
from awrs_ppl.errors import ModelError
from awrs_ppl.posterior._plain_values import NotPlain, encoded
from awrs_ppl.posterior.posterior import Posterior

__all__ = ["Folder"]

_JOB = "job.json"
_VERSION = 1


class Folder:
    """The posteriors of a job, by the number of their input.

    `job.json` says what the job is: the model's name, the seed and the options. Each posterior is
    in a file of its own, `000017-<digest of the input>.json.gz`, written at once or not at all.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self._files: dict[int, str] = {}
        for file in self.path.glob("*-*.json.gz"):
            number = file.name.partition("-")[0]
            if number.isdecimal():
                self._files[int(number)] = file.name

    def begin(self, model: str, seed: int | None, options: Mapping[str, Any], fresh: int) -> int:
        """The seed of the job: the one given, or that of the folder, or a `fresh` one.

        Raises `ModelError` if another job has written here.
        """
        shown = {name: safe_repr(value) for name, value in sorted(options.items())}
        file = self.path / _JOB
        if not file.exists():
            if self._files:
                raise ModelError(
                    f"save={str(self.path)!r} has posteriors and no {_JOB}: give another folder"
                )
            seed = fresh if seed is None else seed
            job = {"version": _VERSION, "model": model, "seed": seed, "options": shown}
            part = self.path / f".{uuid.uuid4().hex}"
            part.write_text(json.dumps(job, indent=1) + "\n", encoding="utf-8")
            os.replace(part, file)
            return seed
        try:
            job = json.loads(file.read_text(encoding="utf-8"))
            version, found = job["version"], (job["model"], job["seed"], job["options"])
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{str(file)!r} is damaged: give another folder") from error
        if version != _VERSION:
            raise ModelError(
                f"{str(file)!r} is of version {version!r}, and this library reads {_VERSION}: "
                "give another folder"
            )
        names = ("the model there is", "the seed there is", "the options there are")
        given = (model, found[1] if seed is None else seed, shown)
        for name, before, now in zip(names, found, given, strict=True):
            if before != now:
                raise ModelError(
                    f"save={str(self.path)!r} is the folder of another job: {name} "
                    f"{before!r}, and now {now!r}; give another folder"
                )
        return found[1]

    def path_of(self, number: int) -> Path:
        """The file of an input that was saved."""
        return self.path / self._files[number]

    def load(self, number: int, value: Any) -> Posterior | None:
        """What was saved for an input; None if nothing was. Raises `ModelError` if it was another
        input."""
        name = self._files.get(number)
        if name is None:
            return None
        if name != self._name(number, value):
            raise ModelError(
                f"save={str(self.path)!r} has a posterior of another input {number}, not of "
                f"{quoted(value)}: give another folder"
            )
        return Posterior.load(self.path_of(number))

    def save(self, number: int, value: Any, posterior: Posterior) -> None:
        """Keep the posterior of an input."""
        name = self._name(number, value)
        posterior.save(self.path / name)
        self._files[number] = name

    def _name(self, number: int, value: Any) -> str:
        return f"{number:06}-{_digest(value)}.json.gz"


def _digest(value: Any) -> str:
    try:
        text = json.dumps(encoded(value))
    except NotPlain:
        text = safe_repr(value)
        if " at 0x" in text:
            raise ModelError(
                f"the input {quoted(value)} cannot be found again when the job is resumed: with "
                "save= give inputs of plain values, such as texts, numbers, lists and dicts, or "
                "dataclasses and Pydantic objects"
            ) from None
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
