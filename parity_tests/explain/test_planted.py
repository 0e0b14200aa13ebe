"""Every planted mistake is explained by name, word for word."""

import json

import pytest

from optparity.explain import conventions, examine
from optparity.explain.planted import SENTENCES, planted

from .examples import gradients, parameters

PLANTED = planted()
STEPS = 14


@pytest.mark.parametrize("mistake", PLANTED, ids=lambda mistake: mistake.name)
def test_it_is_explained_by_name(mistake):
    found = examine(mistake.right, mistake.wrong, parameters(), gradients(STEPS), hyperparameters=mistake.hyperparameters)
    assert not found.agree
    assert found.explanation is not None, str(found)
    assert found.explanation.settings == {mistake.setting}
    assert str(found) == mistake.sentence


def test_each_has_a_name_and_a_sentence_of_its_own():
    assert list(json.loads(SENTENCES.read_text())) == [mistake.name for mistake in PLANTED]
    assert len({mistake.sentence for mistake in PLANTED}) == len(PLANTED)


def test_the_kinds_that_the_family_knows_are_planted():
    """All conventions but those that only come with another framework's numbers."""
    kinds = {mistake.setting for mistake in PLANTED}
    known = {each.name for each in conventions.CONVENTIONS if isinstance(each, conventions.Convention)}
    assert known - kinds == {"schedule", "gathered_dtype", "lr_dtype"}
    assert len(kinds) >= 18
