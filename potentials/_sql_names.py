"""Names in double quotes: which are columns, and which SQLite takes for strings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlglot.optimizer.scope import Scope

__all__ = ["names_are_known", "require_sqlglot"]


def require_sqlglot() -> None:
    """Import it. Raises `ImportError` saying how to install it."""
    try:
        import sqlglot  # noqa: F401
    except ImportError as error:
        raise ImportError('Sql needs sqlglot: pip install "awrs-ppl[sql]"') from error


def names_are_known(query: str, tables: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether each quoted name without a qualifier is in scope, or stands where it is compared.

    For one SELECT that SQLite can prepare: all its other names are known. False if sqlglot
    cannot read it.

    >>> tables = {"singer": ("name", "age")}
    >>> names_are_known('SELECT "name" FROM singer WHERE name = "Amy"', tables)
    True
    >>> names_are_known('SELECT "Amy" FROM singer', tables)
    False
    """
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError
    from sqlglot.optimizer.scope import traverse_scope

    compared = (exp.Predicate, exp.In, exp.Between)
    columns = {table.lower(): {c.lower() for c in own} for table, own in tables.items()}
    try:
        tree = sqlglot.parse_one(query, read="sqlite")
        scopes = traverse_scope(tree)
        return isinstance(tree, exp.Query) and all(
            isinstance(column.parent, compared) or _is_in_scope(column.name.lower(), scope, columns)
            for scope in scopes
            for column in scope.columns
            if not column.table and column.this.args.get("quoted")
        )
    except SqlglotError:
        return False


def _is_in_scope(name: str, scope: Scope | None, columns: Mapping[str, set[str]]) -> bool:
    while scope is not None:
        if name in _new_names(scope.expression):
            return True
        for source in scope.sources.values():
            if name in _columns_of(source, columns):
                return True
        scope = scope.parent
    return False


def _new_names(query: Any) -> set[str]:
    """The names that a query gives to its columns: those after AS, of a compound all."""
    if query.key == "select":
        return {item.alias.lower() for item in query.selects if item.key == "alias"}
    return {selected.lower() for selected in query.named_selects}


def _columns_of(source: Any, columns: Mapping[str, set[str]]) -> set[str]:
    """The names of the columns of a table, or of a subquery."""
    inner = getattr(source, "expression", None)
    if inner is None or not hasattr(inner, "named_selects"):
        return columns.get(source.name.lower(), set())
    names = {selected.lower() for selected in inner.named_selects}
    if "*" in names:
        names.update(*(_columns_of(below, columns) for below in source.sources.values()))
    return names
