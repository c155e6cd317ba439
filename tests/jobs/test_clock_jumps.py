"""A clock that jumps makes nobody take over a job whose worker is alive."""

from __future__ import annotations

from worker.jobs.clock_jumps import ClockJumps


def looks(*pairs: tuple[float, float]) -> list[bool]:
    """What is found at looks when this machine's clock and the database's show these."""
    ours = iter(ours for ours, _ in pairs)
    jumps = ClockJumps(lease_seconds=60.0, clock=lambda: next(ours))
    return [jumps.leases_can_be_trusted(database) for _, database in pairs]


def test_leases_are_trusted_while_both_clocks_go_alike() -> None:
    assert looks((5.0, 1000.0), (65.0, 1060.5), (700.0, 1694.0)) == [True, True, True]


def test_leases_are_not_trusted_for_the_time_of_one_after_a_jump_in_either_direction() -> None:
    for jump in (7200.0, -7200.0):
        seen = looks((0.0, 1000.0), (2.0, 1002.0 + jump), (61.0, 1061.0 + jump), (62.0, 1062.0 + jump))
        assert seen == [True, False, False, True]


def test_clocks_that_drift_slowly_are_no_jump() -> None:
    assert all(looks(*((float(second), 1.01 * second) for second in range(0, 20_000, 2))))
