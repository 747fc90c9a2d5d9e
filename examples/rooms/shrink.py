"""A prompt sent with fewer tokens: what was removed and why, and what may not be removed."""

import json

from labkit import engines, request, shrink

ROWS = [{"order": "TS-12345", "city": "Fordham", "euros": 40}, {"order": "TS-12346", "city": "Bexton", "euros": 75}]
SYSTEM = request.Message("system", "You work at the  support desk. Never promise a refund above 40 euros.")
CALL = request.Message("assistant", "", (request.ToolCall("1", "orders", "{}"),))
CHAT = (SYSTEM, CALL, request.Message("tool", json.dumps(ROWS), tool_call_id="1"), request.Message("user", "Which is due?"))


async def main():
    engine, asked = engines.ScriptedEngine("TS-12346"), request.Request(CHAT)
    for lever in (shrink.Tidy(), shrink.Compact(count=len)):
        print((await lever.shrink(asked)).explain())
    answer = await request.complete(request.stack(shrink.Tidy(), shrink.Compact(count=len), engine=engine), asked)
    print(answer.text, answer.done.route)
    print(engine.asked[0].messages[2].content.replace("\t", " "))


request.run_virtual(main())
planned = (shrink.Cut(0, 0, 31, by="mine"), shrink.Cut(0, 62, 69, by="mine"))  # the second one would break a rule in two
print([SYSTEM.content[cut.start : cut.end] for cut in shrink.harmless(CHAT, planned, shrink.FACTS)])
