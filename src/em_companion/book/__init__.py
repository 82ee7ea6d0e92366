"""What a notebook talks to: a run and its evidence handles, plots, records."""
