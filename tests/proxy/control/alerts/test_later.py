"""Batches whose final bill was above their hold: told by model and day, from the ledger."""

from db.models import ProviderObject
from tests.factories import a_row, a_stored_key, a_uuid7, insert_rows, stored
from tests.proxy.control.alerts.books import DAY_S, NOW_MS, told


def settle(connection, key, model, change_nano, at_ms=NOW_MS):
    call_id, adjustment_id = a_uuid7(NOW_MS - 10**8), a_uuid7(at_ms)
    common = {"provider": "openai", "model": model}
    insert_rows(
        connection,
        a_row(key, call_id=call_id, ending="open", cost_nano=10**9, **common),
        a_row(key, call_id=adjustment_id, adjusts=call_id, cost_nano=change_nano, **common),
    )
    stored(
        connection, ProviderObject, provider="openai", account="", kind="batch",
        object_id=call_id.hex(), noted_at_ms=at_ms, call_id=call_id, adjustment_id=adjustment_id,
        ready=False,
    )  # fmt: skip


async def test_they_are_told_once_per_model_and_day(write, alerting, control):
    key = await write(a_stored_key)
    await write(settle, key, "within", -5)
    await write(settle, key, "exact", 0)
    await write(settle, key, "gpt-5", 10**8)
    await write(settle, key, "gpt-5", 10**8)
    await write(settle, key, "o3<b>", 10**9)
    await write(settle, key, "older", 10**8, NOW_MS - 3 * DAY_S * 1000)
    await alerting.look()
    found = sorted(await write(told), key=lambda each: each.summary)
    assert [each.summary for each in found] == [
        "2 calls to openai/gpt-5 cost 0.20 USD more than was held, as the provider told later: "
        "a price or a rule of holds is wrong",
        "a call to openai/o3<b> cost 1.00 USD more than was held, as the provider told later: "
        "a price or a rule of holds is wrong",
    ]
    assert (found[0].kind, found[0].severity) == ("ceiling_violation", "critical")
    assert found[0].facts == {
        "name": "openai/gpt-5", "count": 2, "above": "0.2", "later": True,
    }  # fmt: skip
    await write(settle, key, "gpt-5", 10**8)
    control.later(60)
    await alerting.look()
    assert len(await write(told)) == 2
    control.later(DAY_S)
    await write(settle, key, "gpt-5", 10**8, control.now_ms)
    await alerting.look()
    assert len(await write(told)) == 3
