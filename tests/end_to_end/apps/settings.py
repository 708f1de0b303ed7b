"""Functions that need a setting of the machine that they are on: the bodies, or the codec of their results."""

from __future__ import annotations

import os

import stepwire

SOON = stepwire.Retry(retries=int(os.environ.get("TEST_RETRIES", "2")), initial_interval=0.05, maximum_interval=0.1)
SETTING = "TEST_BUCKET"


class Locked:
    """Turns payloads about; reading and writing take the key that the environment holds."""

    encoding = "locked"

    def encode(self, payload: stepwire.Payload) -> stepwire.Payload:
        return stepwire.Payload(os.environ["TEST_KEY"].encode() + payload.data, self.encoding)

    def decode(self, payload: stepwire.Payload) -> stepwire.Payload:
        if payload.encoding != self.encoding:
            return payload
        return stepwire.Payload(payload.data.removeprefix(os.environ["TEST_KEY"].encode()), "json")


app = stepwire.App("settings")
locked = stepwire.App("locked", codec=Locked())


@app.function("copies", trigger="settings/copies", retries=SOON)
async def copies(ctx: stepwire.Context, step: stepwire.Step) -> str:
    bucket = os.environ[SETTING]
    await step.run("a", str, 1)
    await step.wait_for_event("gate", "settings/open")
    return await step.run("b", str, bucket)


@app.function("copies-in-a-thread", trigger="settings/copies-in-a-thread", retries=SOON)
def copies_in_a_thread(ctx: stepwire.Context, step: stepwire.SyncStep) -> str:
    step.run("a", str, 1)
    bucket = os.environ[SETTING]
    step.wait_for_event("gate", "settings/open")
    return step.run("b", str, bucket)


@locked.function("reads", trigger="locked/reads", retries=SOON)
async def reads(ctx: stepwire.Context, step: stepwire.Step) -> str:
    first = await step.run("a", str, 1)
    await step.wait_for_event("gate", "settings/open")
    return first
