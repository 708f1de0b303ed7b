"""A function whose values are scrambled on their way out of the process."""

from __future__ import annotations

import hashlib
import zlib

import stepwire

KEY = b"a key that both sides have"
SECRET = "the-secret-that-must-not-be-seen"


class Scramble:
    """Compress, then mix with a key stream: not cryptography, but nothing that can be read by chance."""

    encoding = "scrambled"

    def encode(self, payload: stepwire.Payload) -> stepwire.Payload:
        data = self._mix(zlib.compress(payload.data))
        return stepwire.Payload(data, self.encoding, {"inner": payload.encoding})

    def decode(self, payload: stepwire.Payload) -> stepwire.Payload:
        if payload.encoding != self.encoding:
            return payload
        return stepwire.Payload(zlib.decompress(self._mix(payload.data)), payload.metadata["inner"])

    def _mix(self, data: bytes) -> bytes:
        stream = hashlib.shake_256(KEY).digest(len(data))
        return bytes(a ^ b for a, b in zip(data, stream, strict=True))


app = stepwire.App("coded", codec=Scramble())


async def tell(name: str) -> dict[str, str]:
    return {"name": name, "secret": SECRET}


@app.task("reverse")
def reverse(text: str) -> str:
    return text[::-1]


@app.function("coded", trigger="coded")
async def coded(ctx: stepwire.Context, step: stepwire.Step) -> dict[str, object]:
    told = await step.run("tell", tell, ctx.event.data["name"])
    backwards = await step.call("reverse", SECRET)
    sent = await step.send_events("send", [("coded/sent", {"secret": SECRET})])
    event = await step.wait_for_event("wait", "coded/sent", timeout=30)
    assert event is not None
    return {"told": told, "backwards": backwards, "count": len(sent), "event": event.data}
