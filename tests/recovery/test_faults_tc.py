# SPDX-License-Identifier: MIT
"""At TC nothing but the rumors themselves shows that another program, or none, takes the packets."""

from __future__ import annotations

import pytest

from tests.networks.foreign import TCX_PASS, attached, returning
from tests.planes.fleet import command
from tests.recovery.world import Watch, World, pinned, publish_during

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.mark.parametrize("egress", [False, True])
def test_a_program_of_others_that_ends_the_chain_at_tc(at_tc: World, egress: bool) -> None:
    watch = Watch(at_tc, at_tc[1])
    # Behind ours it does no harm; with ours detached it is first, and ours comes back behind it but for the loader.
    with attached(returning(TCX_PASS), watch.host.namespace, "eth0", egress=egress):
        link = "link_tc_egress" if egress else "link_tc_ingress"
        command("bpftool", "link", "detach", "pinned", str(pinned(watch.host, link)))
        watch.gone()
        publish_during(at_tc, watch, f"chain/{egress}")
        watch.noticed("came past|not multiplied", "carriers_lost" if egress else "passed_by")
        at_tc.best(watch.host, "TC")
        publish_during(at_tc, watch, f"chain/{egress}/mended")
    watch.nobody_was_missed()
