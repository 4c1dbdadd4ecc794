"""What is told of a group of exceptions."""

from segmentd.runtime.groups import first_of


def test_the_first_one_is_told_however_deep_it_is() -> None:
    told = ValueError("told")
    inner = ExceptionGroup("inner", [told, ValueError("second")])
    assert first_of(ExceptionGroup("outer", [ExceptionGroup("middle", [inner]), ValueError("third")])) is told
    assert first_of(ExceptionGroup("flat", [told])) is told
