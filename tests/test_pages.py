"""Text of generated pages."""

from em_companion import pages

VALUES = [
    {"name": "organism.em_percent", "value": 56.3, "unit": "percent"},
    {"name": "ablation.change", "value": -4.26, "unit": "percent_change"},
    {"name": "directions.cosine", "value": 0.666, "unit": "cosine"},
]


def test_prose_takes_its_numbers_from_what_was_measured():
    text = "EM {value}`organism.em_percent`, {value}`ablation.change`; cosine {value}`directions.cosine`, {value}`no`."
    assert pages.filled(text, VALUES) == "EM 56\u00a0%, \u22124.3\u00a0%; cosine 0.67, not run."


def test_prose_without_values_stays_as_it_is():
    text = "See {doc}`3.4 <notebooks/s3-4-ablation>` and `value`."
    assert pages.filled(text, VALUES) == text
