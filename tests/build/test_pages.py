"""Text of generated pages, and how numbers stand in it."""

from em_companion.book import typography
from em_companion.build import pages

VALUES = [
    {"name": "organism.em_percent", "value": 56.3, "unit": "percent"},
    {"name": "ablation.change", "value": -4.26, "unit": "percent_change"},
    {"name": "directions.cosine", "value": 0.666, "unit": "cosine"},
    {"name": "no", "value": None, "unit": "percent"},
]


def test_prose_takes_its_numbers_from_what_was_measured():
    text = "EM {value}`organism.em_percent`, {value}`ablation.change`; cosine {value}`directions.cosine`, {value}`no`."
    assert pages.filled(text, VALUES) == "EM 56\u00a0%, \u22124.3\u00a0%; cosine 0.67, not run."


def test_prose_without_values_stays_as_it_is():
    text = "See {doc}`3.4 <notebooks/s3-4-ablation>` and `value`."
    assert pages.filled(text, VALUES) == text


def test_a_range_whose_ends_print_alike_is_one_number():
    assert typography.extremes([0.954, 0.1, 0.7]) == "0.10 to 0.95"
    assert typography.extremes([0.954, 0.951]) == "0.95"
    assert typography.extremes([5.6, 6.4], ".0f") == "6" and typography.extremes([]) == "–"
