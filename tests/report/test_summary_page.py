"""The summary's words, where a number calls for some."""

import pytest

from offramp.report.summary_page import _inputs_hint


@pytest.mark.parametrize(
    "accuracy, hinted", [(0.33, True), (0.4999, True), (0.5, False), (1, False)]
)
def test_weights_that_do_badly_bring_up_the_images_they_were_trained_on(accuracy, hinted):
    said = " ".join(_inputs_hint(accuracy))
    assert ("normalised by a mean and standard deviation" in said) == hinted
    assert (f"only {accuracy:.1%} of the validation samples" in said) == hinted
