"""Put the adapters of further training seeds into the repository, so that no build trains them anew.

    python experiments/committed_adapters.py

Of the rank-1 recipes of profile cpu, every seed but the first, which each build trains itself. The same code and keys
make them again wherever something that they depend on changes; run this then, and delete what is of another key.
"""

import torch

from em_companion.core import profiles
from em_companion.experiments.prepare import commit, further_seeds


def main() -> None:
    torch.set_num_threads(1)
    profile = profiles.load("cpu")
    for one in further_seeds(profile):
        commit(profile, one)


if __name__ == "__main__":
    main()
