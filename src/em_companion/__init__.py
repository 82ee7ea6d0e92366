"""The helper layer of the executable companion to arXiv 2506.11618: ten rooms in six layers, arrows down only.

    cli                                commands
    build                              from runs to a site: keys, runs, assembly, pages, gates
    book        | experiments          what a notebook shows | what a section needs, computed once and kept
    models      | judges               torch in, tables and arrays out | text in, scores out
    world       | evidence | released  the grown world | tables in, numbers out | the authors' files
    core                               errors, paths, files, store, profiles, provenance

Only `models` and `experiments` import torch; nothing below `book` imports matplotlib; import-linter checks both.
Three words are shared: an `Estimate` is a number with its interval, `keep` is the one road to what is computed once,
and a notebook shows things through the evidence handles of its `Run`.

Nine files to read first, in an hour: `world/generator` and `world/parser` (who speaks, and who judges),
`models/interventions` and `models/asking` (what is done to a model, and how it is asked), `evidence/scores` and
`evidence/directions` (from answers to numbers), `experiments/responses`, `experiments/readings` and
`experiments/steering` (a section, from question to kept table).
"""

__version__ = "0.1.0"
