"""Checks in processes of their own: several at once, with a time limit, and safe from crashes.

`workers` starts them and sends checks; `_worker` is what runs there, and imports little; `_pickles`
sends functions by their code, so that those of a notebook arrive.
"""
