"""What all tests share."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# A busy machine makes an example slow, which says nothing of the code: time never decides a test.
settings.register_profile("pointsman", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pointsman")
