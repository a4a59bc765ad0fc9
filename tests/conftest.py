"""What holds for all tests."""

from hypothesis import settings

# How long an example takes says nothing on a machine that does other things, too; pytest-timeout ends what hangs.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
