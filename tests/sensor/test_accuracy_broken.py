"""A small run of benchmarks/accuracy_broken: the table is made, and its verdicts follow from the numbers."""

import accuracy_broken
import numpy as np
import pandas as pd


def test_verdicts_follow_from_the_numbers():
    rows = [
        ("covered", 2.1, 0.2, False, ""), ("bounded", 1.9, np.inf, False, ""), ("warned", 3.0, 0.2, True, ""),
        ("WRONG", 3.0, 0.2, False, ""), ("WRONG", 2.1, np.inf, False, ""), ("WRONG", 2.1, 0.2, True, "lamp"),
    ]  # fmt: skip
    found = pd.DataFrame(
        [
            {"violation": number, "quantity": "gain", "truth": 2.0}
            | dict(zip(("value", "error", "warned", "misled"), row[1:], strict=True))
            for number, row in enumerate(rows)
        ]
    )
    assert accuracy_broken.summarise(found)["verdict"].tolist() == [row[0] for row in rows]


def test_a_broken_assumption_gives_rows_with_its_warning():
    filtered = accuracy_broken.VIOLATIONS[1]
    found = accuracy_broken.run(1, (filtered,))
    assert found["warned"].all()
    assert np.isfinite(found["value"]).all()
    page = accuracy_broken.document(accuracy_broken.summarise(found), 1)
    assert page.count(filtered.title) == found["quantity"].nunique()
