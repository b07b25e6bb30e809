"""The command ``bilo-ppl compare``."""
