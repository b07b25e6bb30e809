"""The command ``bilo-ppl map``."""
