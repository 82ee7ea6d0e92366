"""What the sections need of models, one module per section; every result is computed once and kept."""
