"""A diagnosis in words."""
from typing import Any

__all__ = ["html", "text", "warnings"]


def warnings(found: Any, posterior: Any) -> list[str]:
    return []


def text(found: Any) -> str:
    return ""


def html(found: Any) -> str:
    return ""
