"""The word that buried instructions demand, to see whether experts obey them."""

CANARY = "ZEBRAFISH"
"""It occurs in no sensible answer."""
