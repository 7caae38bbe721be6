"""Example programs, one file each, as a user would write them."""

if __name__ != "awrs_ppl.models":
    raise ImportError(
        f"this package was imported as {__name__!r}: write `import awrs_ppl.models`, "
        "so that its modules exist only once"
    )
