"""Token proposals: how the next outcome is drawn, and with what weight."""

from awrs_ppl.proposals.awrs import AWRS
from awrs_ppl.proposals.paper import LocalAWRS, PaperAWRS
from awrs_ppl.proposals.pool import Pool
from awrs_ppl.proposals.prior import Prior
from awrs_ppl.proposals.proposal import DEAD, Draw, Proposal, has_pool, is_proposal

__all__ = [
    "AWRS",
    "DEAD",
    "Draw",
    "LocalAWRS",
    "PaperAWRS",
    "Pool",
    "Prior",
    "Proposal",
    "has_pool",
    "is_proposal",
]
