"""An answer that has said enough is stopped, and the fields of a JSON answer are read while it comes."""

from labkit import engines, request, streaming


async def main():
    engine = engines.ScriptedEngine(("Yes. ", "It ", "is. ", "It ", "is. ", "It ", "is. ", "It ", "is. ", "Bye."))
    stop = streaming.StopWhen(streaming.EnoughWords(3))
    answer = await request.complete(request.stack(stop, engine=engine), request.Request("Is it?"))
    print(answer.text, answer.done.usage.output_tokens, answer.done.route)


request.run_virtual(main())
for found in streaming.progressive(('{"team": "ret', 'urns", "urg', 'ent": true}')):
    print(found.path, found.value, "after", found.at, "characters")
reading = streaming.streamed([0.5, 1.0, 9.0], rate=4.0)
print("read after", reading.finish_s, "s, of which", reading.stalled_s, "s waiting for more")
