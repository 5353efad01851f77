"""Objects by name and by place."""

import pytest

from workbench.core.errors import WorkbenchError
from workbench.stars import find_object, objects_near


@pytest.mark.parametrize("name", ["M94", "M 94", "NGC4736", "ngc 4736"])
def test_an_object_has_many_names(name):
    ra, dec, label = find_object(name)
    assert (round(ra, 2), round(dec, 2), label) == (192.72, 41.12, "M 94")


def test_the_largest_object_comes_first():
    near = objects_near(83.82, -5.39, 1.0)  # Orion's sword
    assert near["label"][0] == "M 42"
    assert {"M 43", "NGC 1977"} <= set(near["label"])


def test_an_unknown_name_is_refused_in_words():
    with pytest.raises(WorkbenchError, match="'my garden' is not among the objects of OpenNGC"):
        find_object("my garden")
