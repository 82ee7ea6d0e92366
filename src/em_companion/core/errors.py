"""What a user can mend, said in one sentence."""


class CompanionError(Exception):
    """Something a user can mend, said in one sentence; the command line prints it and exits with 1."""


class EvidenceUnavailable(CompanionError):
    """An evidence is not to be had in this build: a page shows a box in its place and goes on."""
