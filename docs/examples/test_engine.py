"""The engine in a simulated cluster: two hundred worlds, in which machines die, pause and lose their network."""

from engine import STEPS, worker

from continuum_conformance.simulate import SimulatedCluster, SimulatedRun

ORDERS = [
    SimulatedRun(
        f"order-{number}",
        workflow="order",
        input={"number": number},
        result={"shipped": True},
        history=[{"type": step} for step in STEPS],
        start=60 * number,
    )
    for number in range(5)
]


def test_every_order_is_shipped_once():
    """Whatever happens to the machines."""
    SimulatedCluster(worker, ORDERS, workers=3, hours=0.5, within=2).check(range(200))
