"""For tests of programs, potentials and proposals: exact answers on small cases."""

from awrs_ppl.testing.enumeration import Exact, enumerate_posterior
from awrs_ppl.testing.testing import assert_prefix_closed, assert_properly_weighted, assert_unbiased

__all__ = [
    "Exact",
    "assert_prefix_closed",
    "assert_properly_weighted",
    "assert_unbiased",
    "enumerate_posterior",
]
