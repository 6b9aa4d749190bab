from hypothesis import settings

from tests.fakes.models import one_thread

__all__ = ["one_thread"]

# A machine that trains meanwhile is slow now and then; that is no failure.
settings.register_profile("without deadline", deadline=None)
settings.load_profile("without deadline")
