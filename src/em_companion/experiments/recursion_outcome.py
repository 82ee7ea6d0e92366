"""What became of the predictions of N2: the kept tables of `experiments/recursion_and_self_correction.py`, and one
measurement for each prediction that they decide."""

NAME = "n2-recursion-and-self-correction"
HARMED, STEERED = "{}, bad advice", "{}, steered"
"""Arms of a model that is harmed, and of one that is steered."""
