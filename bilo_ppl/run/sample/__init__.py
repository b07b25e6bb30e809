"""The command ``bilo-ppl run``."""
